"""Placeholder until the readers land."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDocument:
    """Document."""

    id: str
    text: str
    metadata: Mapping[str, Any]
