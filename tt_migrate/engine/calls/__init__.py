"""One call of a script: the connection, the server, the permissions, the reply."""
