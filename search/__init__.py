"""A query becomes hits: what knows both images and indexes, and nothing of web pages."""
