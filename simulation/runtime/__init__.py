"""Infrastructure that knows nothing of driving: worker processes, compiled kernels, caches, files and locks."""
