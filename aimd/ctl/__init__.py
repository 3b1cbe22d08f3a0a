"""aimctl: the operator's client of the local API. Shows and asks; every decision is the daemon's.

It must start fast (200 ms for a list), so it speaks HTTP by http.client, decodes with json, and imports rich and yaml
only where they are used. It reads the messages of aimd.protocol.messages without importing them.
"""
