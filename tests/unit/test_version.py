"""One version, said by the package, its metadata, the command line, the API and the first line of every log."""

import importlib.metadata
import json
import logging

import pytest
import structlog

import pipeline
from api.app import create_app
from pipeline.cli.main import run
from pipeline.settings import Settings
from pipeline.telemetry.logs import start_logging


def test_the_package_its_metadata_and_the_api_say_the_same_version() -> None:
    assert pipeline.__version__ == importlib.metadata.version("forefill")
    assert create_app(Settings()).openapi()["info"]["version"] == pipeline.__version__


def test_the_command_line_says_its_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"forefill {pipeline.__version__}\n"


def test_the_first_line_of_a_log_says_process_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        start_logging("api", level="INFO")
        line = json.loads(capsys.readouterr().err.splitlines()[0])
    finally:
        root.handlers, root.level = before
        structlog.reset_defaults()
    assert (line["event"], line["process"], line["version"]) == ("process.started", "api", pipeline.__version__)
