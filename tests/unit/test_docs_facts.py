"""Facts that docs repeat are the code's: the law of the packages, the steps, figures for sizing, queues, addresses."""

import ast
import re
from itertools import product
from pathlib import Path

from api.app import create_app
from pipeline.jobs.store import QUEUES
from pipeline.services import publishing
from pipeline.services.diagnosis import redis_servers
from pipeline.settings import Settings
from tests.test_architecture import PACKAGES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")

_SPAN = re.compile(r"`([^`]+)`")
_ROUTE = re.compile(r"(?:((?:[A-Z]+ · )*[A-Z]+) )?(/\S*)((?: · [a-z]+)*)")


def steps() -> list[str]:
    """Return the steps' names as publishing takes them."""
    tree = ast.parse(Path(publishing.__file__).read_text(encoding="utf-8"))
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "steps")
    return [
        str(ast.literal_eval(node.value)) for node in ast.walk(function) if isinstance(node, ast.Yield) and node.value
    ]


def test_the_drawing_of_the_packages_is_the_law() -> None:
    drawing = re.search(r"enforces it:\n\n`([^`]+)`", ARCHITECTURE)
    assert drawing is not None
    assert tuple(drawing[1].replace("\n", " ").split(" · ")) == PACKAGES


def test_the_steps_of_publishing_are_those_of_the_code() -> None:
    heading, _, rest = ARCHITECTURE.partition("## Publishing a document: ")[2].partition("\n")
    rows = re.findall(r"^\| ([a-z]+) \| (?:SQL|Redis|Qdrant) \|", rest.partition("\n## ")[0], re.MULTILINE)
    drawn = re.findall(r"\b([1-9]) ([a-z]+)\b", next(line for line in README.splitlines() if "1 intend" in line))
    assert rows == steps()
    assert drawn == [(str(number), name) for number, name in enumerate(steps(), start=1)]
    said = re.findall(
        r"(\w+) (?:fenced )?steps", f"{heading} {publishing.__doc__} {Path(publishing.__file__).read_text()}"
    )
    assert {word for word in said if word in NUMBERS} == {NUMBERS[len(steps())]}


def test_sizing_of_the_cache_is_said_as_doctor_reckons_it() -> None:
    per_token, per_entry = redis_servers._BYTES_PER_TOKEN, redis_servers._BYTES_PER_ENTRY
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "docker-compose.yml"]
    texts = {page.name: " ".join(page.read_text(encoding="utf-8").split()) for page in pages}
    for name in ("deployment.md", "docker-compose.yml"):
        assert re.search(rf"\b{per_token} bytes a token and {per_entry} an entry", texts[name]), name
    assert f"reckons with {per_token} a token and {per_entry} an entry" in texts["findings.md"]
    whole_gb = (450 * per_token + per_entry) * 1_000_000 / 1e9
    assert f"1 million passages of 450 tokens are {whole_gb:.1f} GB" in texts["deployment.md"]
    assert "Measured are 1.8 bytes a token" in texts["deployment.md"]
    assert "| 1.8 bytes a token" in texts["when-it-pays.md"]


def test_queues_that_are_named_exist() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "docker-compose.yml",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "deploy").glob("*"),
    ]
    for page in pages:
        if page.is_file():
            named = re.findall(r"--queues[ ,]+([a-z][a-z,]*)", page.read_text(encoding="utf-8"))
            assert {queue for names in named for queue in names.split(",") if queue} <= set(QUEUES), page.name
    assert all(re.search(rf"\b{queue}\b", ARCHITECTURE + README) for queue in QUEUES)


def test_the_readme_lists_every_address_there_is_and_no_other() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    there = {(method.upper(), _shape(path)) for path, methods in paths.items() for method in methods} | {("GET", "/")}
    listed = _listed()
    assert there - {route for group in listed for route in group} == set()
    assert [group for group in listed if not group & there] == []


def _listed() -> list[set[tuple[str, str]]]:
    """Return the README's addresses, each as the set of those that an optional part makes of it."""
    table = README.partition("| method and path | |\n")[2].partition("\n\n")[0]
    found = []
    for row in table.splitlines()[1:]:
        methods = ""
        for span in _SPAN.findall(row.split(" | ")[0]):
            match = _ROUTE.fullmatch(span)
            assert match is not None, span
            methods = match[1] or methods
            found += [
                {(method, _shape(path)) for path in _with_and_without(address)}
                for method, address in product(methods.split(" · "), _alternatives(match[2], match[3]))
            ]
    return found


def _alternatives(path: str, others: str) -> list[str]:
    """Return `/a/b`, `/a/c` for `/a/b · c`."""
    stem = path.rpartition("/")[0]
    return [path, *(f"{stem}/{name}" for name in others.split(" · ")[1:])]


def _with_and_without(address: str) -> tuple[str, str]:
    return re.sub(r"\[([^\]]*)\]", r"\1", address), re.sub(r"\[[^\]]*\]", "", address)


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)
