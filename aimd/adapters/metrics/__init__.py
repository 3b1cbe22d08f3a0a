"""Metrics: what is measured and kept becomes a page in the formats of Prometheus. The one door to prometheus_client."""
