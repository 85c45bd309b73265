"""Tabs of the page beside search: each module builds its own into the page's tabs."""
