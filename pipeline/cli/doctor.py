"""`forefill doctor`: is the deployment sound."""

import contextlib

import typer

from pipeline.cli.invocation import Call, command, require_database_file
from pipeline.database import Database, create_database_engine
from pipeline.factory import open_index_writer
from pipeline.services.diagnosis import Finding, Level, examine
from pipeline.services.presenting import JsonObject
from pipeline.version import __version__


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(doctor)


def doctor(call: Call) -> None:
    """Check everything the deployment relies on. Exit code 1 if anything fails."""
    require_database_file(call.settings)
    findings: list[Finding] = []
    call.output.line(f"forefill {__version__}")
    with (
        contextlib.closing(Database(create_database_engine(call.settings.database_url, pool_size=1))) as database,
        contextlib.closing(open_index_writer(call.settings)) as writer,
    ):
        for finding in examine(call.settings, database, writer):
            findings.append(finding)
            call.output.line(f"{finding.level.value:<5} {finding.subject}: {finding.message}")
            if finding.remedy is not None:
                call.output.line(f"      → {finding.remedy}")
    failed = any(finding.level is Level.FAIL for finding in findings)
    call.output.emit(
        {"version": __version__, "sound": not failed, "findings": [_object(finding) for finding in findings]}
    )
    if failed:
        raise typer.Exit(1)


def _object(finding: Finding) -> JsonObject:
    return {
        "level": finding.level.value,
        "subject": finding.subject,
        "message": finding.message,
        "remedy": finding.remedy,
    }
