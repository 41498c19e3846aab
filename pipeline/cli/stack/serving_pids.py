"""Which of several API processes serve: written by their parent, read by whoever started it."""

from pathlib import Path

import orjson

_NAME = "serving.json"


def write_serving_pids(folder: Path, pids: list[int]) -> None:
    """Replace what is said.

    Args:
        folder: Of the processes' counts.
        pids: Of those that serve now.

    Raises:
        OSError: The folder cannot be written.
    """
    draft = folder / f".{_NAME}.new"
    draft.write_bytes(orjson.dumps(pids))
    draft.replace(folder / _NAME)


def read_serving_pids(folder: Path) -> list[int]:
    """Return what was said last; nothing is as good as none."""
    try:
        pids: list[int] = orjson.loads((folder / _NAME).read_bytes())
    except FileNotFoundError:
        return []
    return pids
