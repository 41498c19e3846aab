"""The command line, `forefill`: one file per command group, all of them thin over `pipeline.services`."""

from typing import NoReturn

from pipeline.loading import collector_at_rest


def main() -> NoReturn:
    """Run the command line of this process."""
    with collector_at_rest():
        from pipeline.cli.main import main as run_this  # noqa: PLC0415  # imports most of what there is
    run_this()


__all__ = ["main"]
