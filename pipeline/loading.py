"""How a process loads its own modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Import for good within: the garbage collector rests, and never looks at what is there by the end.

    Modules, classes and functions live as long as their process. Looking through them again and again while they are
    loaded, and once more at exit, would take a quarter of the time that a command takes. For entry points only: what
    is garbage at the end of the block is never collected either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
