"""Compiling scenes to flat arrays, and the files that keep them."""
