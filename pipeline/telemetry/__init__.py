"""What can be observed: metrics, spans and structured logs, each declared once."""
