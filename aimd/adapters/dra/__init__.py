"""The driver of Dynamic Resource Allocation: what the kubelet asks for, and what the container runtime reads.

The only place that imports `grpc` and `google.protobuf` (extra `dra`); nothing of this package is imported unless it is
configured. What a claim gets is decided elsewhere (`ports_dra.Preparing`).
"""
