"""`forefill-given.env`: what `forefill up` was given by environment, `.env` and flags, for the commands of its folder.

Without it a command in another terminal would know the stack's stores, but not its engine. It is written anew at each
start and never read by `up`: what is not given again is gone. Whatever a command's own environment says wins.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from pipeline.cli.stack.contradictions import MADE_HERE
from pipeline.cli.stack.private_files import write_private
from pipeline.settings import GIVEN_FILE, Settings

_KEPT_ELSEWHERE = frozenset({*MADE_HERE, "database_url", "api_host", "api_port"})
"""Settings that stand in `forefill.env`, as the stack has them."""

_HEAD = "# Written by each `forefill up`: what it was given. Own settings go into forefill.env.\n"


def keep_given(folder: Path, given: Settings, *, flags: Mapping[str, str]) -> None:
    """Write what this start was given; secrets are among it.

    Args:
        folder: The data directory.
        given: Settings of the environment and `.env` alone.
        flags: What flags say instead, by full name (`FOREFILL_…`).

    Raises:
        OSError: It cannot be written.
    """
    names = sorted(given.model_fields_set - _KEPT_ELSEWHERE)
    variables = {f"FOREFILL_{name.upper()}": _text(getattr(given, name)) for name in names} | dict(flags)
    write_private(folder / GIVEN_FILE, _HEAD + "".join(f"{name}={_quoted(text)}\n" for name, text in variables.items()))


def _text(value: object) -> str:
    """Return a setting's value as its variable holds it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(map(str, value))
        case Path():
            return str(value.absolute())
        case _:
            return str(value)


def _quoted(text: str) -> str:
    """Return a value that python-dotenv reads as it is, also with quotes and what looks like a variable in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "${FOREFILL_:-$}{")
    return f"'{escaped}'"
