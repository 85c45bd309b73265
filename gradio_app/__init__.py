"""A person's query to hits on the screen."""
