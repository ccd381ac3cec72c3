"""Measurements against real servers."""
