"""The demo on a real server: an old town, its preview, its migration and a second run."""
