"""The whole journey on a real server: an old town, the preview, the migration, the second run."""
