"""What a node tells those who watch over it from outside: figures for Prometheus, spans for OpenTelemetry."""
