"""Tests with the real Tinytown: 0.6.0 creates a town, and 0.10.0 reads it after a migration."""
