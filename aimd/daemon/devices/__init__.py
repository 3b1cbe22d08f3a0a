"""Partitions as devices that the cluster's scheduler gives to pods (Dynamic Resource Allocation)."""
