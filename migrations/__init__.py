"""Alembic migrations of Forefill's schema; `forefill db upgrade` runs them."""
