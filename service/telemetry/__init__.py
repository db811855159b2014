"""Telemetry: the metrics, how they are exposed, and the Prometheus and Grafana files that go with them."""
