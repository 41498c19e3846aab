"""Forefill's library: everything that does not need Celery or a web framework.

Packages import only packages to their left (`tests/test_architecture.py` enforces it):
errors, settings, telemetry, database, framing, tokenizers, documents, token_cache, jobs, retrieval, context,
generation, services, factory, cli.
"""
