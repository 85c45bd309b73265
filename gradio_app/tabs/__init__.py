"""Tabs of the page: each module builds its own into the page's tabs."""
