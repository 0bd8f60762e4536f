"""Runtime: exported models found, checked and run behind one seam, and exported in the first place."""
