"""What runs underneath and knows nothing of driving: processes, compiled kernels, caches, files and locks."""
