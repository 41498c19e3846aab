"""The command line, `forefill`: one file per command group, all of them thin over `pipeline.services`."""

TYPE_CHECKING = False  # see `pipeline`
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command line of this process."""
    from pipeline.ending import end_at_once  # noqa: PLC0415  # importing this package changes no signal

    end_at_once()
    from pipeline.loading import collector_at_rest  # noqa: PLC0415  # nothing before the line above

    with collector_at_rest():
        from pipeline.cli.main import main as run_this  # noqa: PLC0415  # imports most of what there is
    run_this()


__all__ = ["main"]
