"""Carries out a plan on a server."""
