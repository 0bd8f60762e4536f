"""enhancers."""
