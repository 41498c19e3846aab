"""Celery's side of Forefill: it wakes workers and isolates their processes; what happens is decided in SQL."""
