"""The cluster: reading pods and NodePartitions of this node, writing statuses and Events. Decides nothing about GPUs.

The only place that imports `kubernetes` (extra `kube`), and within it only `access` and `connection` do; nothing of
this package is imported unless a cluster is configured.
"""
