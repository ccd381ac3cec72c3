"""From options, environment and town file to an open client."""
