"""SQL access: declarative base, one engine recipe per database, units of work."""

from pipeline.database.among import among
from pipeline.database.base import Base, DocumentText, Identity, Millis, now_ms
from pipeline.database.engines import create_database_engine
from pipeline.database.faults import Fault, fault_of, is_blameless
from pipeline.database.units import Database, insert_missing, rows_affected, upsert

__all__ = [
    "Base",
    "Database",
    "DocumentText",
    "Fault",
    "Identity",
    "Millis",
    "among",
    "create_database_engine",
    "fault_of",
    "insert_missing",
    "is_blameless",
    "now_ms",
    "rows_affected",
    "upsert",
]
