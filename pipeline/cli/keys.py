"""`forefill keys`: who may use the HTTP API.

A key's text is printed once, when it is made, on standard output and nowhere else; no command takes one as an argument.
"""

from typing import Annotated

import typer

from pipeline.cli.invocation import Call, command, new_group
from pipeline.documents.access import (
    EVERY_CORPUS,
    AccessScope,
    ApiKey,
    forget_key,
    get_key,
    issue_key,
    list_keys,
    revoke_key,
)
from pipeline.services.configuration import REFRESH_S
from pipeline.services.presenting import key_object, time_text

KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `forefill keys ls` shows it; not the key itself.")]
_SCOPES = ", ".join(AccessScope)


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = new_group("API keys: who may ask, feed and govern which corpora over HTTP.")
    command(group)(add)
    command(group, "ls")(list_all)
    command(group)(revoke)
    command(group)(forget)
    app.add_typer(group, name="keys")


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    scope: Annotated[
        list[str], typer.Option("--scope", "-s", metavar="SCOPE", help=f"{_SCOPES}; several with commas or repeated.")
    ],
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", "-c", metavar="NAME", help="Only for this corpus; may be repeated. By default all."),
    ] = None,
) -> None:
    """Make a key and print it, this once."""
    with call.database(durable=True) as database, database.write() as connection:
        is_first = not list_keys(connection)
        issued = issue_key(connection, name, scopes=_listed(scope), corpora=_listed(corpus) if corpus else None)
    call.output.line(issued.text)
    call.output.emit({**key_object(issued.key), "key": issued.text})
    call.output.note(f"This is key {issued.key.id}, shown only now. APIs that run take it within {REFRESH_S:g} s.")
    if is_first:
        call.output.note("It is the first key: from then on every request needs one.")


def list_all(
    call: Call,
    active: Annotated[bool, typer.Option("--active", help="Only keys that are not revoked.")] = False,
) -> None:
    """List keys, oldest first; what is secret of them is kept nowhere."""
    with call.database() as database, database.read() as connection:
        keys = list_keys(connection, revoked=not active)
    call.output.emit({"keys": [key_object(key) for key in keys], "next": None})
    if not keys:
        call.output.line("no keys")
        return
    rows = [
        (key.id, key.name, " ".join(sorted(key.scopes)), _reach(key), time_text(key.created_at),
         time_text(key.revoked_at))
        for key in keys
    ]  # fmt: skip
    call.output.table(("ID", "NAME", "SCOPES", "CORPORA", "CREATED", "REVOKED"), rows)


def revoke(call: Call, key: KeyId) -> None:
    """End a key for good. The last one's end closes the API; it does not open it."""
    with call.database(durable=True) as database, database.write() as connection:
        ended = revoke_key(connection, key)
        rest = list_keys(connection, revoked=False)
    call.output.line(f"revoked key {ended.id} ({ended.name}); APIs that run refuse it within {REFRESH_S:g} s")
    call.output.emit(key_object(ended))
    if not rest:
        call.output.note("It was the last one: nobody is let in now. `forefill keys add` makes another.")


def forget(
    call: Call,
    key: KeyId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove the record of a revoked key. Without any record the API is without keys again, on loopback only."""
    with call.database(durable=True) as database:
        with database.read() as connection:
            opens = get_key(connection, key).revoked_at is not None and len(list_keys(connection)) == 1
        if opens and not yes:
            typer.confirm(
                "It is the last record: whoever is on this machine may then do everything. Go on?", abort=True, err=True
            )
        with database.write() as connection:
            gone = forget_key(connection, key)
    call.output.line(f"forgot key {gone.id} ({gone.name})")
    call.output.emit(key_object(gone))


def _listed(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _reach(key: ApiKey) -> str:
    return EVERY_CORPUS if key.corpora is None else " ".join(sorted(key.corpora))
