"""Partitions as devices that the scheduler of a cluster allocates (Dynamic Resource Allocation). Pure.

From the node to ResourceSlices, from an allocated ResourceClaim to what is reserved, and to what containers get.
"""
