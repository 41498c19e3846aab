"""`forefill bench` where there is no checkout."""

from pathlib import Path

import pytest

import pipeline
from pipeline.cli.bench import checkout
from pipeline.errors import ConfigurationError


def test_the_benchmarks_of_the_checkout_are_found() -> None:
    assert (checkout() / "pyproject.toml").is_file()


def test_an_installed_package_says_where_the_benchmarks_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "pipeline" / "__init__.py"))
    with pytest.raises(ConfigurationError, match="make env"):
        checkout()
