"""How candidates are scanned; one answer, several speeds."""
