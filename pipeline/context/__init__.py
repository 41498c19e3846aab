"""From found passages to the exact ids of a context: ordering, budget, assembling, validation of a spec."""

from pipeline.context.assembly import (
    AssembledContext,
    assemble,
    concatenate,
    prompt_ids,
    prompt_text,
    rendered_segments,
)
from pipeline.context.budget import select_within_budget
from pipeline.context.ordering import Order, drop_duplicates, drop_older_generations, order_passages
from pipeline.context.passages import ContextPassage, Source
from pipeline.context.reference import Difference, WholePassage, find_difference, reference_context
from pipeline.context.validation import ValidationReport, validate_spec

__all__ = [
    "AssembledContext",
    "ContextPassage",
    "Difference",
    "Order",
    "Source",
    "ValidationReport",
    "WholePassage",
    "assemble",
    "concatenate",
    "drop_duplicates",
    "drop_older_generations",
    "find_difference",
    "order_passages",
    "prompt_ids",
    "prompt_text",
    "reference_context",
    "rendered_segments",
    "select_within_budget",
    "validate_spec",
]
