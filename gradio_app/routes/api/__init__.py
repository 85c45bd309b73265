"""REST beside the page, on the same port: collections and their pictures, searches, what is said, jobs."""
