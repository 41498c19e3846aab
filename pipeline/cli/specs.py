"""`forefill spec`: token specs, what decides the ids."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import spec_enable, spec_lifecycle
from pipeline.cli.invocation import Call, command, new_group
from pipeline.cli.progress import show_progress
from pipeline.context import ValidationReport
from pipeline.database import Database
from pipeline.errors import InvalidInput, TooLarge
from pipeline.framing import known_frames
from pipeline.framing.chat_template import MAX_CONFIG_BYTES
from pipeline.services.presenting import page_object, spec_object, validation_object
from pipeline.services.spec_adding import MIN_CONTEXTS, AddedSpec, NewSpec, add_spec
from pipeline.services.specs import list_specs
from pipeline.tokenizers import MAX_TOKENIZER_BYTES

_FRAMES = ", ".join(known_frames())
_SHOWN_HEX = 12


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = new_group("Token specs: an encoding in a frame, which together decide the ids.")
    command(group, "ls")(list_all)
    command(group)(add)
    spec_lifecycle.register(group)
    spec_enable.register(group)
    app.add_typer(group, name="spec")


def list_all(call: Call) -> None:
    """List specs that were added or used, and what corpora do with them."""
    with call.database() as database, database.read() as connection:
        reports = list_specs(connection)
    rows = [(r.id, r.source, r.status, r.fingerprint[:_SHOWN_HEX], _coverage(r.coverage), r.library) for r in reports]
    call.output.table(("SPEC", "SOURCE", "STATUS", "FINGERPRINT", "COVERAGE", "VALIDATED WITH"), rows)
    for report in reports:
        for corpus, reason in report.caching_off.items():
            call.output.note(f"caching of corpus {corpus} under {report.id} is off: {reason}")
    call.output.emit(page_object("specs", [spec_object(r) for r in reports], limit=len(reports) + 1, key="id"))


def add(
    call: Call,
    frame: Annotated[
        str, typer.Option(metavar="NAME|FILE", help=f"A packaged frame ({_FRAMES}), or a file with your own as JSON.")
    ],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your model's tokenizer.json; - for standard input.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help="A packaged encoding instead.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the tokenizer; by default after its hash.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your model's chat template (.jinja or tokenizer_config.json): the frame must agree with it.",
        ),
    ] = None,
    contexts: Annotated[
        int | None,
        typer.Option(
            min=MIN_CONTEXTS, help="Prompts it is validated with; by default FOREFILL_SPEC_VALIDATION_CONTEXTS."
        ),
    ] = None,
) -> None:
    """Validate a spec and add it. One whose ids could not be put together exactly is refused with the example."""
    new = NewSpec(
        frame=_read_frame(frame),
        encoding=encoding,
        tokenizer=None if tokenizer is None else _read(tokenizer, MAX_TOKENIZER_BYTES, item="tokenizer_json"),
        name=name,
        chat_template=None if template is None else _read(template, MAX_CONFIG_BYTES, item="chat_template"),
    )
    began = time.perf_counter()
    with call.database(durable=True) as database:
        added = _add(call, database, new, contexts=contexts or call.settings.spec_validation_contexts)
        with database.read() as connection:
            (report,) = list_specs(connection, only=added.spec_id)
    call.output.line(_sentence(added, seconds=time.perf_counter() - began))
    validation = None if added.report is None else validation_object(added.report)
    call.output.emit({**spec_object(report), "created": added.created, "validation": validation})


def _add(call: Call, database: Database, new: NewSpec, *, contexts: int) -> AddedSpec:
    with show_progress(call.output, "validating") as report:

        def progress(done: int) -> None:
            report(done / contexts, f"{done:,} of {contexts:,} prompts have exact ids")

        return add_spec(database, new, contexts=contexts, progress=progress)


def _sentence(added: AddedSpec, *, seconds: float) -> str:
    if added.report is None:
        return f"spec {added.spec_id} was added before: nothing changed"
    return f"added spec {added.spec_id}: {_proof(added.report)}, {seconds:.1f} s"


def _proof(report: ValidationReport) -> str:
    proof = f"{report.contexts:,} prompts of {report.passages:,} passages have exact ids"
    if report.cuts:
        proof += f", {report.cuts:,} of them cut to a budget"
    if report.unsafe_passages:
        proof += f", {report.unsafe_passages / report.passages:.1%} of the passages only when encoded in place"
    if report.refused_texts:
        proof += f"; {report.refused_texts:,} texts it cannot spell are refused"
    return proof


def _coverage(coverage: dict[str, float | None]) -> str | None:
    shown = {corpus: "unknown" if share is None else f"{share:.0%}" for corpus, share in coverage.items()}
    return ", ".join(f"{corpus} {share}" for corpus, share in sorted(shown.items())) or None


def _read_frame(given: str) -> str | bytes:
    """Return a packaged frame's name, or the content of a file."""
    if given in known_frames():
        return given
    path = Path(given)
    if not path.is_file():
        raise InvalidInput(f"frame {given!r} is neither a file nor one of {_FRAMES}", item="frame")
    return path.read_bytes()


def _read(path: Path, max_bytes: int, *, item: str) -> bytes:
    """Read a file, not more of it than is allowed.

    Raises:
        TooLarge: It is larger.
    """
    if str(path) == "-":
        content = sys.stdin.buffer.read(max_bytes + 1)
    else:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise TooLarge(f"{path} is over {max_bytes:,} bytes", item=item)
    return content
