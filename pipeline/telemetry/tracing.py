"""Spans of the read path, through OpenTelemetry's API: without an SDK configured they cost nothing."""

from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.trace import Span

TRACER = trace.get_tracer("forefill")
"""Source of `token_cached_rag.retrieve_tokens` and `token_cached_rag.generate`."""


def inside(span: Span) -> AbstractContextManager[Span]:
    """Make a span the parent of those begun in a block, without ending it there."""
    return trace.use_span(span, end_on_exit=False)
