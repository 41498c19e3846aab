"""Servers come from packages: absent on a laptop they skip a test with a reason, on CI they fail it."""

import importlib.util
import os
from pathlib import Path
from typing import NoReturn

import pytest


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        missing(f"package {name} is not installed (pip install -e '.[dev]')")
    return Path(next(iter(spec.submodule_search_locations)))


def missing(reason: str) -> NoReturn:
    """Skip the calling test, or fail it where the environment says `CI=true`."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
