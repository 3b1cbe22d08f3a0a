"""The daemon: the only place that waits, acts and reads the clock."""
