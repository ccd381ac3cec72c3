"""The real Tinytown: a town that 0.6.0 made, migrated, and read by 0.10.0."""
