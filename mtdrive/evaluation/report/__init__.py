"""The report of a run: one HTML file that can be opened from disk."""
