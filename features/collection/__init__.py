"""A collection: the images of a data set, their vectors and indexes, one folder on disk."""
