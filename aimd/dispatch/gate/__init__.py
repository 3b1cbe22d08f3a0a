"""The gate: an HTTP reverse proxy beside a model server that takes a lease from aimd for each request.

The model server is not changed. `aimctl gate` is the only way in: `settings` is read from its options and `server.serve`
runs until SIGTERM. From the outside in: `server` (listeners, the end), `gate` (what is asked before a request
may go on), `exchange` (one request's way through), `watching` (what ends it from the side), and beneath them plain rules
and values: `asking`, `fields`, `answers`, `counters`, `settings`. Nothing here is imported by anything else of aimd but
that one command, since aiohttp takes its time to load.
"""
