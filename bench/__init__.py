"""Measurements against real servers: an experiment a file, and what is wanted of it."""
