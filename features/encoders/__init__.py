"""Networks that turn images into vectors."""
