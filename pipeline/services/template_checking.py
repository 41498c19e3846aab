"""Comparing a frame with the chat template of the model it is meant for, once, when a spec is added.

The template renders the frame's own messages in a process of its own; read as an engine would read it, the rendering
must have exactly the ids of the frame's prompt.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import orjson

from pipeline.errors import InvalidInput
from pipeline.framing import Segment, prompt_segments, reference_ids
from pipeline.framing.chat_template import (
    MAX_TEMPLATE_BYTES,
    ChatTemplate,
    Conversation,
    agreement,
    conversations,
    difference,
    parse_chat_template,
    spelled,
    template_segments,
)
from pipeline.tokenizers import TokenSpec

_PASSAGES = (
    'The gate opens at 7:30 & closes at dusk; "late" is <not> {{ early }}.\n\nDogs stay on a lead.',
    "- Straße, naïve, 漢字, 👩‍👧\n- f(x) = {'a': 1}",
)
_QUESTION = "When does the gate open, and what's {% raw %} of it?"
_CONTEXTS = (_PASSAGES[:0], _PASSAGES[:1], _PASSAGES)

_CPU_SECONDS = 2
"""After which the operating system ends the process, its start included."""

_WALL_SECONDS = 20.0
"""After which it is killed, however busy the machine is."""


def check_chat_template(spec: TokenSpec, data: bytes) -> None:
    """Refuse a template that would render a frame's prompt otherwise, for none, one and two passages.

    Args:
        spec: The frame and the tokenizer.
        data: A Jinja template, or a `tokenizer_config.json` that holds one.

    Raises:
        InvalidInput: It is no template, it cannot be rendered safely, or some id differs; the message shows where.
        TooLarge: It is over the limit.
    """
    frame = spec.frame
    template = parse_chat_template(data)
    if not frame.has_controls:
        raise InvalidInput(
            f"frame {frame.name} has no control tokens: there is nothing a chat template could agree with",
            item="chat_template",
        )
    candidates = list(zip(*(conversations(frame, passages, _QUESTION) for passages in _CONTEXTS), strict=True))
    renderings = _render(template, [conversation for candidate in candidates for conversation in candidate])
    prompts = [prompt_segments(frame, passages, _QUESTION) for passages in _CONTEXTS]
    problems = [
        _problem(spec, renderings[start : start + len(prompts)], prompts)
        for start in range(0, len(renderings), len(prompts))
    ]
    if None not in problems:
        nearest = max(problem for problem in problems if problem is not None)
        raise _refused(f"renders the prompt of frame {frame.name} otherwise: {nearest[1]}")


def _problem(
    spec: TokenSpec, renderings: Sequence[dict[str, str]], prompts: Sequence[Sequence[Segment]]
) -> tuple[int, str] | None:
    """Return how far the first rendering that differs agrees and what is wrong with it, or None if all agree."""
    controls = tuple(spec.tokenizer.identity.special_tokens)
    for rendering, prompt in zip(renderings, prompts, strict=True):
        if "error" in rendering:
            return -1, rendering["error"]
        found, expected = rendering["text"], spelled(prompt)
        read = reference_ids(template_segments(found, controls=controls), spec.tokenizer)
        if not np.array_equal(read, reference_ids(prompt, spec.tokenizer)):
            return agreement(found, expected), difference(found, expected, controls=controls)
    return None


def _render(template: ChatTemplate, asked: Sequence[Conversation]) -> list[dict[str, str]]:
    """Render conversations in a process that sees no secret and is killed when it takes too long.

    Returns:
        For each conversation `{"text"}`, or `{"error"}` if the template refuses just that one.

    Raises:
        InvalidInput: The template is none, or does what none may do.
    """
    job = {
        "source": template.source,
        "tokens": template.tokens,
        "conversations": asked,
        "max_bytes": MAX_TEMPLATE_BYTES,
        "cpu_seconds": _CPU_SECONDS,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "pipeline.services.template_sandbox"],
            input=orjson.dumps(job),
            capture_output=True,
            timeout=_WALL_SECONDS,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"takes over {_WALL_SECONDS:g} s") from error
    if done.returncode < 0:
        raise _refused(f"computes for over {_CPU_SECONDS} s")
    if done.returncode > 0:
        raise _refused("cannot be rendered")
    answer = orjson.loads(done.stdout)
    if "refused" in answer:
        raise _refused(answer["refused"])
    renderings: list[dict[str, str]] = answer["renderings"]
    return renderings


def _refused(reason: str) -> InvalidInput:
    return InvalidInput(f"refused: the chat template {reason}", item="chat_template")
