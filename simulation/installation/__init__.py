"""Is this installation sound, and how fast is it: a self-check with stored scores, and timings."""
