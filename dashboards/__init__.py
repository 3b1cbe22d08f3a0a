"""Grafana dashboards and Prometheus rules of aimd, as tables; `python -m dashboards.generate` writes the files."""
