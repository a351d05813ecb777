"""A page to browse an evaluation or a dataset: one HTML file that opens from disk."""
