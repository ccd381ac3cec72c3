"""Upgrade a Tinytown's Redis to the town-isolated key format."""
