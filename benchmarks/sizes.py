"""How much is measured: enough for figures, or enough to see that everything runs."""

from dataclasses import dataclass

from benchmarks.corpus import MB


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a run measures on."""

    rounds: int
    """Repetitions of a filling."""
    fill_bytes: int
    """Text that is filled, UTF-8 bytes of documents."""
    bounded_bytes: int
    """The part of it that a slow rival gets; its rate is what counts."""
    scale_passages: tuple[int, ...]
    """Corpora whose cost per passage is compared, the first with the others."""
    lookup_passages: int
    """Entries that lookups draw from."""
    lookup_rounds: int
    """Rounds of a few hundred lookups of every kind."""
    memory_passages: int
    served_documents: int
    """Documents really published for the rows that ask the API."""
    minutes: int
    """Simulated minutes of questions and updates."""
    questions_a_minute: int
    load_s: float
    """Seconds of load in each turn."""
    load_rounds: int
    is_judged: bool
    """Whether the goals hold for it: they are for the whole text; smaller texts cost more for each passage."""


FULL = Sizes(
    rounds=5,
    fill_bytes=205 * MB,
    bounded_bytes=20 * MB,
    scale_passages=(10_000, 100_000),
    lookup_passages=20_000,
    lookup_rounds=10,
    memory_passages=15_000,
    served_documents=3_000,
    minutes=15,
    questions_a_minute=1_200,
    load_s=5.0,
    load_rounds=5,
    is_judged=True,
)

QUICK = Sizes(
    rounds=2,
    fill_bytes=8 * MB,
    bounded_bytes=2 * MB,
    scale_passages=(1_000, 4_000),
    lookup_passages=1_000,
    lookup_rounds=3,
    memory_passages=1_500,
    served_documents=200,
    minutes=6,
    questions_a_minute=120,
    load_s=1.0,
    load_rounds=2,
    is_judged=False,
)
