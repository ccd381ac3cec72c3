"""Passes over the keys of a server, call by call."""
