"""What the server answers beside the page itself: pictures, uploads, and who is let through."""
