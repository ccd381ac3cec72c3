"""The engine for clusters of several shards, and for services that want declared keys."""
