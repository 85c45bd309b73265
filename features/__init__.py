"""Image files to vectors. Knows nothing of indexes."""
