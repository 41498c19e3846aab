"""What README and docs say exists: every setting is in the README, every command, option and link is real.

The README's table of settings is made from `pipeline/settings.py`: `python -m tests.unit.test_readme` writes it.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePath

import pytest
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pipeline import settings as settings_module
from pipeline.cli.main import build_app
from pipeline.settings import DATA_DIR_VARIABLE, Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

BEGIN, END = "<!-- settings: python -m tests.unit.test_readme -->", "<!-- end of settings -->"

NOT_SETTINGS = {DATA_DIR_VARIABLE, "FOREFILL_CACHE_MEMORY_MIB", "FOREFILL_IMAGE_TAG"}
"""Variables that are read elsewhere: by the command line, by `forefill up`, by docker-compose.yml."""

_FENCE = re.compile(r"^( *)```[a-z]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INVOCATION = re.compile(r"(?<![\w./-])(?<!-\w )(?<!-\w\w )(?:\.venv/bin/)?forefill +(.*)")
_WORD = re.compile(r"[a-z][a-z-]*")
_OPTION = re.compile(r"--[a-z][a-z-]*")


def settings_table() -> str:
    """Return the README's table of settings."""
    documented = _docstrings()
    rows = [
        f"| `FOREFILL_{name.upper()}` | {_default(field)} | {documented[name]} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _docstrings() -> dict[str, str]:
    """Return the sentence below each setting, on one line."""
    tree = ast.parse(Path(settings_module.__file__).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    found = {}
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
            found[node.target.id] = " ".join(str(ast.literal_eval(after.value)).split()).replace("|", "\\|")
    return found


def _default(field: FieldInfo) -> str:
    match field.default:
        case None | ():
            return "none"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case SecretStr():
            return "(secret)"
        case PurePath() | str() | int() | float() as value:
            return f"`{value}`"
    raise AssertionError(f"no way to show the default {field.default!r}")


def _code(text: str) -> Iterator[str]:
    """Yield the lines of code blocks, continued ones joined, and the code spans of the prose."""
    for _, block in _FENCE.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from _SPAN.findall(_FENCE.sub("", text).replace("\\|", "|"))


def _invocations(text: str) -> Iterator[tuple[str, str]]:
    """Yield the arguments of each `forefill …` in the code of a page, with the line it stands in."""
    for line in _code(text):
        for found in _INVOCATION.finditer(line):
            yield re.split(r"\s[|#>]|&&|;|\)$", found[1])[0].strip(), line


def _commands() -> dict[tuple[str, ...], set[str]]:
    """Return every command and group with its options."""
    found: dict[tuple[str, ...], set[str]] = {}

    def walk(command: object, path: tuple[str, ...]) -> None:
        options = {name for parameter in getattr(command, "params", ()) for name in parameter.opts}
        found[path] = options | {"--help"}
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))

    walk(typer.main.get_command(build_app(())), ())
    return found


def _complaint(arguments: str, commands: dict[tuple[str, ...], set[str]]) -> str | None:
    """Return what is wrong with a command line of a page; placeholders and elisions are taken for what they are."""
    try:
        words = shlex.split(arguments.replace("…", " ").replace("[", " ").replace("]", " "))
    except ValueError:
        return f"cannot be parsed: {arguments}"
    path: tuple[str, ...] = ()
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--data-dir":
            skip = True
        elif not word.startswith("-"):
            if (*path, word) not in commands:
                if _has_commands(path, commands) and _WORD.fullmatch(word):
                    return f"there is no command {' '.join((*path, word))}"
                break
            path = (*path, word)
    unknown = set(_OPTION.findall(arguments)) - commands[path] - commands[()]
    return f"{' '.join(path)} has no {', '.join(sorted(unknown))}" if unknown else None


def _has_commands(path: tuple[str, ...], commands: dict[tuple[str, ...], set[str]]) -> bool:
    return any(len(other) > len(path) and other[: len(path)] == path for other in commands)


@pytest.fixture(scope="module")
def commands() -> dict[tuple[str, ...], set[str]]:
    """Every command there is."""
    return _commands()


def test_the_readme_has_one_block_of_python() -> None:
    assert len(re.findall(r"^```python\n", README.read_text(encoding="utf-8"), re.MULTILINE)) == 1  # test_up runs it


def test_every_setting_is_in_the_readme_as_the_code_says_it() -> None:
    text = README.read_text(encoding="utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert table == settings_table(), "run `python -m tests.unit.test_readme`, which writes the table"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_is_named_exists(page: Path) -> None:
    known = {f"FOREFILL_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    named = set(re.findall(r"FOREFILL_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_…])", page.read_text(encoding="utf-8")))
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page: Path, commands: dict[tuple[str, ...], set[str]]) -> None:
    complaints = {
        line: complaint
        for arguments, line in _invocations(page.read_text(encoding="utf-8"))
        if (complaint := _complaint(arguments, commands)) is not None
    }
    assert complaints == {}


def test_every_command_there_is_has_its_line_in_the_readme(commands: dict[tuple[str, ...], set[str]]) -> None:
    named = set(re.findall(r"[a-z][a-z-]*", " ".join(_SPAN.findall(README.read_text(encoding="utf-8")))))
    assert {word for path in commands for word in path} - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))) if "://" not in link]
    assert [link for link in links if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        word
        for line in _code(page.read_text(encoding="utf-8"))
        for word in re.findall(r"^(?:\$ )?make ([a-z][a-z-]*)", line.strip())
    }
    assert named - targets == set()


@pytest.mark.parametrize(
    ("arguments", "is_wrong"),
    [
        ("ingest FILE --corpus docs --wait", False),
        ("--data-dir DIR runs show RUN", False),
        ("runs errors RUN --limit 10", False),
        ("COMMAND --help", False),
        ("conjure", True),
        ("runs conjure RUN", True),
        ("ingest FILE --conjure", True),
    ],
)
def test_a_command_that_does_not_exist_is_found_out(
    commands: dict[tuple[str, ...], set[str]], arguments: str, *, is_wrong: bool
) -> None:
    assert (_complaint(arguments, commands) is not None) == is_wrong


if __name__ == "__main__":
    whole = README.read_text(encoding="utf-8")
    head, _, rest = whole.partition(BEGIN)
    README.write_text(f"{head}{BEGIN}\n{settings_table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
