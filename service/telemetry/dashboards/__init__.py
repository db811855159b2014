"""The Grafana dashboards as code. `python -m service.telemetry.dashboards` writes their JSON, which is committed and
which compose.yaml provisions; it needs the extra `dashboards`, the server needs none of it.
"""
