"""The methods as torch networks; imported for training and export only, never at run time."""
