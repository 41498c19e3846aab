"""The program that renders a chat template: a process of its own, which may be killed and holds no secret.

A template comes from a file that somebody uploaded. Jinja's sandbox keeps it from reaching Python, limits of the
operating system bound its time and memory, and its output is read only up to a bound. Job in on standard input, answers
out on standard output, both one JSON object.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from jinja2 import Template, TemplateError, meta, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MEMORY_BYTES = 1024 * 1024 * 1024
_TODAY = datetime(2000, 1, 1, tzinfo=UTC)
"""What a template takes for today, so that one which writes the date renders the same each day."""


class _TooMuchError(Exception):
    """The output is over its bound."""


class _Generation(Extension):
    """`{% generation %}`, with which templates mark what the model says; nothing is rendered for it."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja's own extensions declare it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the block's body."""
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def main() -> None:
    """Render every conversation of the job on standard input."""
    job = orjson.loads(sys.stdin.buffer.read())
    _limit_this_process(cpu_seconds=job["cpu_seconds"])
    try:
        answer = _rendered(job)
    except MemoryError:
        answer = {"refused": "needs too much memory"}
    except Exception as error:  # noqa: BLE001  # whatever a template does wrong is an answer
        answer = {"refused": _sentence(error)}
    sys.stdout.buffer.write(orjson.dumps(answer))


def _rendered(job: Mapping[str, Any]) -> dict[str, Any]:
    environment = _environment()
    tokens = job["tokens"]
    if tokens is None:
        used = meta.find_undeclared_variables(environment.parse(job["source"]))
        if unknown := sorted(name for name in used if name.endswith("_token")):
            return {"refused": f"writes {', '.join(unknown)}, which only the model's tokenizer_config.json tells"}
        tokens = {}
    template = environment.from_string(job["source"])
    try:
        return {"renderings": [_one(template, tokens, messages, job["max_bytes"]) for messages in job["conversations"]]}
    except _TooMuchError:
        return {"refused": f"renders over {job['max_bytes']:,} bytes"}


def _one(template: Template, tokens: Mapping[str, str], messages: Any, max_bytes: int) -> dict[str, str]:
    """Render one conversation; what the template itself refuses is an answer, too."""
    fixed = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    parts, size_bytes = [], 0
    try:
        for part in template.generate(**tokens, **fixed):
            parts.append(part)
            size_bytes += len(part.encode())
            if size_bytes > max_bytes:
                raise _TooMuchError
    except TemplateError as error:
        return {"error": _sentence(error)}
    return {"text": "".join(parts)}


def _environment() -> ImmutableSandboxedEnvironment:
    """Return an environment with what Hugging Face's `transformers` gives templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _TODAY.strftime
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # the filter's arguments as templates know them
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002  # as above
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _sentence(error: Exception) -> str:
    place = f" (line {line})" if isinstance(line := getattr(error, "lineno", None), int) else ""
    return f"fails: {type(error).__name__}: {str(error)[:300]}{place}"


def _limit_this_process(*, cpu_seconds: int) -> None:
    """Have the operating system end this process when it computes too long; memory is refused beyond a bound."""
    with contextlib.suppress(ImportError):  # not on Windows, where only the caller's time limit ends it
        import resource  # noqa: PLC0415  # as above

        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


if __name__ == "__main__":
    main()
