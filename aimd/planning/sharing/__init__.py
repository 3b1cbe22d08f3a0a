"""What pods ask of the node, and what the cluster is told of it. Pure."""
