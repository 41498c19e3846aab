"""The shape of the source, read from the source: who imports whom, who knows which technology, what every exception
to a rule says for itself.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[1]
SOURCES = ("pipeline", "workers", "api", "migrations")

PACKAGES = (
    "version",
    "errors",
    "ending",
    "loading",
    "json_input",
    "settings",
    "telemetry",
    "listening",
    "bounded_http",
    "bounded_redis",
    "database",
    "framing",
    "tokenizers",
    "documents",
    "token_cache",
    "jobs",
    "retrieval",
    "context",
    "generation",
    "services",
    "factory",
    "cli",
)
"""Left to right: each imports only what stands to its left."""

FREE_TO_ALL = {"errors", "telemetry", "version"}

TECHNOLOGIES: dict[str, tuple[str, ...]] = {
    "alembic": ("migrations/", "pipeline/services/schema.py"),
    "cachebox": ("pipeline/token_cache/",),
    "cachetools": ("pipeline/token_cache/",),
    "celery": ("workers/",),
    "fastapi": ("api/",),
    "flower": (),
    "gigatoken": ("pipeline/tokenizers/gigatoken.py",),
    "httptools": ("pipeline/listening/",),
    "jinja2": ("pipeline/services/template_sandbox.py",),
    "jiter": ("pipeline/json_input.py",),
    "kombu": ("workers/",),
    "lxml": ("pipeline/documents/html_charset.py", "pipeline/documents/html_text.py"),
    "openai": ("pipeline/generation/openai_chat.py", "pipeline/retrieval/openai_embeddings.py"),
    "opentelemetry": ("pipeline/telemetry/tracing.py",),
    "prometheus_client": ("pipeline/telemetry/metrics.py", "api/routes/"),
    "psycopg": (),
    "qdrant_client": (
        "pipeline/retrieval/qdrant.py",
        "pipeline/retrieval/qdrant_errors.py",
        "pipeline/retrieval/qdrant_shapes.py",
        "pipeline/retrieval/owner/",
        "pipeline/services/answering.py",  # the published signature takes its client
        "pipeline/services/connecting.py",  # and tells it from others
    ),
    "qdrant_edge": ("pipeline/retrieval/owner/", "pipeline/retrieval/bm25.py"),
    "redis": (
        "pipeline/bounded_redis.py",
        "pipeline/token_cache/redis_replies.py",
        "pipeline/token_cache/redis_cache.py",
        "pipeline/token_cache/redis_commands.py",
        "pipeline/token_cache/redis_connections.py",
        "pipeline/jobs/redis_nudge.py",
        "pipeline/services/diagnosis/redis_writes.py",
        "pipeline/services/answering.py",  # the published signature takes its client
        "pipeline/services/connecting.py",  # and tells it from others
        "workers/dispatching.py",
    ),
    "rich": ("pipeline/cli/",),
    "semantic_text_splitter": ("pipeline/documents/splitting.py",),
    "sqlalchemy": (
        "pipeline/database/",
        "pipeline/tokenizers/tables.py",
        "pipeline/documents/",
        "pipeline/jobs/",
        "pipeline/services/",
        "pipeline/cli/",
        "api/",
        "migrations/",
    ),
    "starlette": ("api/",),
    "structlog": ("pipeline/telemetry/logs.py",),
    "tiktoken": ("pipeline/tokenizers/tiktoken_bpe.py",),
    "tokenizers": ("pipeline/retrieval/static_vectors.py", "pipeline/tokenizers/hf.py"),
    "typer": ("pipeline/cli/",),
    "uvicorn": ("api/", "pipeline/listening/", "pipeline/retrieval/owner/"),
    "webencodings": ("pipeline/documents/html_charset.py",),
    "xxhash": ("pipeline/token_cache/codec.py",),
    "zstandard": ("pipeline/token_cache/dictionary.py",),
}
"""Where a technology may be imported. Every other module works with what these make of it."""

NAMED_FOR = {
    "gigatoken": "gigatoken",
    "hf": "tokenizers",
    "openai": "openai",
    "qdrant": "qdrant_client",
    "redis": "redis",
    "tiktoken": "tiktoken",
}
"""First word of a file's name, and the library that no other file of its folder imports."""

FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base_classes"}

SETTINGS_AT_IMPORT = {"workers/main.py"}
"""Entry points that a foreign program loads as a module: Celery's `-A workers.main`."""

_REASONED = re.compile(r"# (noqa: [A-Z]+\d+(, [A-Z]+\d+)*|type: ignore\[[a-z-]+(, ?[a-z-]+)*\])  # \S.*")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module."""

    path: str
    """The importing file, relative to the repository."""
    module: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def files(*roots: str) -> Iterator[Path]:
    for root in roots:
        yield from sorted((ROOT / root).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@cache
def imports() -> tuple[Import, ...]:
    """Return every import of the product's source, those inside functions too."""
    found = []
    for path in files(*SOURCES):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Import(names=names):
                    found += [Import(relative(path), name.name, node.lineno) for name in names]
                case ast.ImportFrom(module=module, level=level, names=names):
                    assert level == 0, f"{relative(path)}:{node.lineno}: imports are absolute"
                    found += [Import(relative(path), f"{module}.{name.name}", node.lineno) for name in names]
    return tuple(found)


def package_of(module: str) -> str | None:
    """Return the package of `pipeline` that a dotted module belongs to; None outside."""
    first, _, rest = module.partition(".")
    return rest.split(".", 1)[0] if first == "pipeline" and rest else None


def dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_the_law_is_the_one_that_the_package_states() -> None:
    stated = (pipeline.__doc__ or "").replace("\n", " ").rpartition(":")[2].strip(" .")
    assert tuple(name.strip() for name in stated.split(",")) == PACKAGES


def test_every_part_of_the_library_has_its_place_in_the_law() -> None:
    parts = {path.stem if path.suffix == ".py" else path.name for path in (ROOT / "pipeline").iterdir()}
    assert parts - {"__init__", "__pycache__", "py.typed"} <= set(PACKAGES)


def test_packages_import_only_packages_to_their_left() -> None:
    place = {name: number for number, name in enumerate(PACKAGES)}
    wrong = []
    for each in imports():
        importer, imported = package_of(dotted(each.path)), package_of(each.module)
        if importer is None or imported is None or imported in {importer, *FREE_TO_ALL}:
            continue
        if place[imported] > place[importer]:
            wrong.append(str(each))
    assert wrong == []


def test_what_is_free_to_all_imports_nothing_of_the_library() -> None:
    free = [each for each in imports() if package_of(dotted(each.path)) in FREE_TO_ALL]
    assert [str(each) for each in free if package_of(each.module) not in {None, *FREE_TO_ALL}] == []


def test_workers_api_and_migrations_import_the_library_and_never_one_another() -> None:
    wrong = [
        str(each)
        for each in imports()
        if (root := each.module.split(".")[0]) in SOURCES and root not in {"pipeline", each.path.split("/")[0]}
    ]
    assert wrong == []


def test_nothing_imports_tests() -> None:
    assert [str(each) for each in imports() if each.module.split(".")[0] == "tests"] == []


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_a_technology_is_known_only_where_the_table_says(technology: str) -> None:
    allowed = TECHNOLOGIES[technology]
    users = [each for each in imports() if each.module.split(".")[0] == technology]
    assert [str(each) for each in users if not each.path.startswith(allowed)] == []
    unused = [place for place in allowed if not any(each.path.startswith(place) for each in users)]
    assert unused == [], "the table allows what nobody does"


def test_a_file_named_for_a_technology_is_its_only_importer_in_its_folder() -> None:
    wrong = []
    for path in files("pipeline"):
        library = NAMED_FOR.get(path.stem.split("_")[0])
        if library is None:
            continue
        folder = relative(path.parent)
        for each in imports():
            importer = Path(each.path)
            beside = importer.parent.as_posix() == folder and not importer.stem.startswith(path.stem.split("_")[0])
            if beside and each.module.split(".")[0] == library:
                wrong.append(str(each))
    assert wrong == []


def test_no_module_reads_the_environment_at_import() -> None:
    wrong = [
        f"{relative(path)}:{node.lineno}"
        for path in files(*SOURCES)
        if relative(path) not in SETTINGS_AT_IMPORT
        for node in _run_at_import(parsed(path))
        if _reads_environment(node)
    ]
    assert wrong == []


def test_no_file_hides_behind_a_name_that_says_nothing_or_shadows_the_standard_library() -> None:
    forbidden = FORBIDDEN_NAMES | set(sys.stdlib_module_names)
    names = {part for path in files(*SOURCES) for part in (*path.relative_to(ROOT).parts[:-1], path.stem)}
    assert (names - {"__init__", "__main__"}) & forbidden == set()


def test_every_module_says_why_it_exists() -> None:
    silent = [relative(path) for path in files(*SOURCES) if path.stat().st_size and not ast.get_docstring(parsed(path))]
    assert silent == []


def test_every_rule_that_ruff_ignores_has_its_reason_beside_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    begin = lines.index("ignore = [")
    end = next(place for place, line in enumerate(lines) if line.startswith("[tool.ruff.lint.pydocstyle]"))
    ignores = [line for line in lines[begin:end] if re.search(r'"[A-Z]+\d*"', line)]
    assert len(ignores) > 10
    assert [line for line in ignores if not re.search(r"\]?,?\s+# \S+", line)] == []


def test_every_suppressed_warning_names_its_code_and_its_reason() -> None:
    bare = []
    for path in files(*SOURCES, "tests", "benchmarks"):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            suppresses = token.type == tokenize.COMMENT and re.match(r"#\s*(noqa|type:\s*ignore)", token.string)
            if suppresses and not _REASONED.fullmatch(token.string):
                bare.append(f"{relative(path)}:{token.start[0]}: {token.string}")
    assert bare == []


def test_the_checks_find_what_they_look_for() -> None:
    module = ast.parse("import os\nA = os.environ['X']\ndef f(x=os.getenv('Y')):\n    return os.environ['Z']\n")
    assert [node.lineno for node in _run_at_import(module) if _reads_environment(node)] == [2, 3]
    assert not _REASONED.fullmatch("# noqa: E501")
    assert not _REASONED.fullmatch("# noqa")
    assert _REASONED.fullmatch("# type: ignore[misc]  # a reason")


def _run_at_import(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield every expression that importing a module evaluates: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):
            yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*node.decorator_list, node.args):
                yield from _run_at_import(ast.Expression(part) if isinstance(part, ast.expr) else part)
        elif not isinstance(node, ast.Lambda):
            yield from _run_at_import(node)


def _reads_environment(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "getenv"):
            return True
        case ast.Call(func=ast.Name(id="load_settings")):
            return True
    return False
