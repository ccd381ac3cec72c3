"""Turns options, environment variables and the town's file into a Redis client."""
