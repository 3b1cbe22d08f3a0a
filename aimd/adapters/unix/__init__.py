"""Unix sockets of the daemon: who is calling, and the socket that is listened at; for API, dispatch and metrics."""
