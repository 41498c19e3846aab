"""`docker-compose.yml` as Compose reads it: merged, with variables, and nothing that Compose would refuse."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"

_REFERENCE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:[-?])(?P<rest>[^{}]*))?\}|(?P<invalid>))"
)
_DURATION = re.compile(r"(\d+)(s|m)")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, as Compose does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's own signature
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(names) == len(set(names)), f"a key stands twice: {node.start_mark}"
        return super().construct_mapping(node, deep=deep)


@dataclass(frozen=True)
class Service:
    """One service, every variable resolved."""

    name: str
    settings: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        """What the container runs, word by word; empty for the image's own command."""
        return [str(word) for word in self.settings.get("command", [])]

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the container; those handed on without a value are not set."""
        return {name: str(value) for name, value in self.settings.get("environment", {}).items() if value is not None}

    @property
    def health_check(self) -> list[str]:
        """What is run to see whether it is healthy, empty if there is none."""
        kind, *words = self.settings.get("healthcheck", {}).get("test", ["NONE"])
        shell = {"NONE": [], "CMD": [], "CMD-SHELL": ["sh", "-c"]}[kind]
        return [*shell, *words]

    @property
    def stop_grace_s(self) -> float:
        """Seconds between the signal that stops it and the one that kills it."""
        return duration_s(self.settings.get("stop_grace_period", "10s"))


def raw_services() -> dict[str, dict[str, Any]]:
    """Return the services with anchors merged and variables as they are written."""
    services: dict[str, dict[str, Any]] = raw_file()["services"]
    return services


def raw_file() -> dict[str, Any]:
    """Return the whole file."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, Loader=_Loader)
    return content


def services(variables: Mapping[str, str]) -> dict[str, Service]:
    """Return all services as they would be started with a `.env` file.

    Raises:
        KeyError: A required variable has no value.
    """
    return {
        name: Service(name, _hand_on(resolve(settings, variables), variables))
        for name, settings in raw_services().items()
    }


def resolve(value: Any, variables: Mapping[str, str]) -> Any:
    """Return a value of the file with `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?message}` resolved.

    Raises:
        KeyError: A variable without a default has no value.
    """
    match value:
        case str():
            return _REFERENCE.sub(lambda found: _substitute(found, variables), value)
        case dict():
            return {name: resolve(inner, variables) for name, inner in value.items()}
        case list():
            return [resolve(inner, variables) for inner in value]
        case _:
            return value


def required_variables() -> set[str]:
    """Return the names of variables that must have a value."""
    return _references(lambda found: found["operator"] == ":?")


def all_variables() -> set[str]:
    """Return the names of all variables that the file mentions, those handed on without a value among them."""
    handed_on = {
        name
        for settings in raw_services().values()
        for name, value in settings.get("environment", {}).items()
        if value is None
    }
    return handed_on | _references(lambda found: bool(found["name"]))


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a `.env` file, empty values among them."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def duration_s(text: str) -> float:
    """Return a duration such as `45s` or `1m` in seconds."""
    match = _DURATION.fullmatch(text)
    assert match is not None, text
    return float(match[1]) * {"s": 1, "m": 60}[match[2]]


def size_bytes(text: str) -> int:
    """Return a size such as `512m`, `2g` or `1gb` in bytes."""
    match = re.fullmatch(r"(\d+)([mg])b?", text.lower())
    assert match is not None, text
    return int(match[1]) * {"m": 2**20, "g": 2**30}[match[2]]


def _references(chosen: Callable[[re.Match[str]], bool]) -> set[str]:
    text = str(raw_file())
    return {found["name"] for found in _REFERENCE.finditer(text) if found["name"] and chosen(found)}


def _substitute(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["escaped"]:
        return "$"
    assert found["invalid"] is None, f"a lone $ at {found.start()} of {found.string!r}"
    value = variables.get(found["name"], "")
    if value or found["operator"] is None:
        return value
    if found["operator"] == ":?":
        raise KeyError(found["name"])
    return str(found["rest"])


def _hand_on(settings: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    environment = settings.get("environment", {})
    return {
        **settings,
        "environment": {name: variables.get(name) if value is None else value for name, value in environment.items()},
    }
