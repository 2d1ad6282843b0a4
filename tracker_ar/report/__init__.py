"""One HTML page from a workspace of the VOT toolkit."""
