"""A plan carried out on a server."""
