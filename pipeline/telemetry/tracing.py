"""Spans of the read path, through OpenTelemetry's API: without an SDK configured they cost nothing."""

from opentelemetry import trace

TRACER = trace.get_tracer("forefill")
"""Source of `token_cached_rag.retrieve_tokens` and `token_cached_rag.generate`."""
