"""The command line, `forefill`: one file per command group, all of them thin over `pipeline.services`."""

from pipeline.cli.main import main

__all__ = ["main"]
