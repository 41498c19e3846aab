"""A frame beside its model's chat template: equal, or the first difference; and templates that mean harm."""

import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidInput, TooLarge
from pipeline.framing import Control, Frame, Text, packaged_frame
from pipeline.services.template_checking import check_chat_template
from pipeline.tokenizers import TokenSpec, build_spec, load_hf, load_spec
from tests.unit.tokenizers.hf_files import added, tokenizer_json, with_added

TEMPLATES = Path(__file__).parent / "chat_templates"
LLAMA_CONTROLS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
DATED = (
    "\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    "Answer the question using the documents below."
)


@cache
def spec_with(frame: Frame) -> TokenSpec:
    controls = with_added(*(added(name, 302 + place, special=True) for place, name in enumerate(LLAMA_CONTROLS)))
    return build_spec(load_hf(tokenizer_json("small", controls), name="small"), frame=frame)


def check(template: str | bytes, frame: Frame | str = "chatml") -> None:
    spec = spec_with(packaged_frame(frame) if isinstance(frame, str) else frame)
    check_chat_template(spec, template.encode() if isinstance(template, str) else template)


def read(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def config(name: str, **fields: Any) -> bytes:
    return json.dumps({"chat_template": read(name), "bos_token": "<|begin_of_text|>", **fields}).encode()


def with_system(text: str, frame: str = "llama3") -> Frame:
    packaged = packaged_frame(frame)
    prefix = tuple(Text(text) if isinstance(s, Text) and "Answer" in s.text else s for s in packaged.prefix)
    return replace(packaged, name="own", prefix=prefix)


@pytest.mark.parametrize("name", ["qwen3", "smollm2"])
def test_chatml_is_what_qwen_and_smollm_render(name: str) -> None:
    check(read(name))
    check(json.dumps({"chat_template": read(name), "bos_token": None}))


def test_llama3_is_what_llama_3_renders() -> None:
    check(config("llama3"), "llama3")
    check(config("llama3", bos_token={"content": "<|begin_of_text|>", "lstrip": False}), "llama3")
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": read("llama3")}]
    check(config("llama3", chat_template=named), "llama3")


def test_the_dates_of_llama_3_1_are_the_difference_that_is_shown_and_a_frame_with_them_agrees() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"frame llama3 otherwise: after '.*system<\|end_header_id\|>\\n\\n' the template writes "
        r"'Cutting Knowledge Date: December 2023.*, the frame 'Answer the question",
    ):
        check(config("llama31"), "llama3")
    check(config("llama31"), with_system(DATED))


def test_a_beginning_that_only_the_configuration_tells_is_asked_for() -> None:
    with pytest.raises(InvalidInput, match=r"writes bos_token, which only the model's tokenizer_config.json tells"):
        check(read("llama3"), "llama3")
    with pytest.raises(InvalidInput, match="after '' the template writes '<s><"):
        check(config("llama3", bos_token="<s>"), "llama3")


def test_a_frame_without_a_system_message_agrees_where_the_template_writes_none() -> None:
    chatml = packaged_frame("chatml")
    silent = replace(chatml, name="silent", prefix=chatml.prefix[-2:])
    check(read("qwen3"), silent)
    with pytest.raises(InvalidInput, match=r"the template writes 'system\\nYou are a helpful AI assistant"):
        check(read("smollm2"), silent)


def test_text_of_the_frames_own_before_and_behind_is_part_of_the_messages() -> None:
    chatml = packaged_frame("chatml")
    prefix = (*chatml.prefix[:-1], Text("user\nHere are documents.\nRead them.\n\n"))
    check(read("qwen3"), replace(chatml, name="wordy", prefix=prefix, suffix=(Text("\nBe brief."), *chatml.suffix)))


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (
            "assistant\n' }}",
            "assistant\n<think>\n' }}",
            r"after .* the template writes '<think>\\n', the frame nothing more",
        ),
        (
            "assistant\n' }}",
            "' }}",
            r"after .*<\|im_start\|>\S the template writes nothing more, the frame 'assistant\\n'",
        ),
        ("message['content']", "message['content'] | upper", "after '.*nA' the template writes 'NSWER"),
        (
            "message['content']",
            "message['content'] | replace('&', '&amp;')",
            r"7:30 &' the template writes 'amp; closes",
        ),
        ("message['content']", "message['content'] | replace('\n\n', '\n')", r"the template writes 'Dogs|'Question"),
        ("{% endfor %}", "{% endfor %}{{ strftime_now('%Y') }}", "the template writes '2000"),
        ("add_generation_prompt", "false", r"writes nothing more, the frame '<\|im_start\|>assistant\\n'"),
    ],
)
def test_another_rendering_is_refused_with_the_first_difference(old: str, new: str, shown: str) -> None:
    template = read("smollm2")
    assert old in template
    with pytest.raises(InvalidInput, match=shown):
        check(template.replace(old, new))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("constant", "after '' the template writes 'constant', the frame"),
        ("{{ raise_exception('no system role') }}", "fails: TemplateError: no system role"),
        ("{{ messages[7].content }}", "fails: UndefinedError"),
        ("{% for x %}", "fails: TemplateSyntaxError: .* .line 1."),
        ("{{ messages + 1 }}", "fails: TypeError"),
    ],
)
def test_a_template_that_renders_nothing_of_use_is_refused(template: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check(template)


def test_what_transformers_gives_templates_is_there() -> None:
    template = read("smollm2").replace(
        "{% for message in messages %}", "{% for message in messages %}{% if false %}{% break %}{% endif %}"
    )
    check(template + "{% generation %}{% endgeneration %}{{ '' if [1, 'ä'] | tojson == '[1, \"ä\"]' else 'no' }}")
    check("{% if tools is none and documents is none %}" + template + "{% endif %}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "OverflowError: Range too big"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "computes for over 2 s",
        ),
        ("{{ 9 ** (9 ** 9) }}", "computes for over 2 s"),
        ("{{ 'x' * 10**10 }}", "needs too much memory"),
        ("{% for i in range(99999) %}{{ 'much ' * 20 }}{% endfor %}", "renders over 65,536 bytes"),
        ("{{ 'x' * 70000 }}", "renders over 65,536 bytes"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ raise_exception.__globals__ }}", "the template writes nothing more"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "SecurityError|UndefinedError"),
        ("{% import 'os' as os %}", "no loader for this environment"),
        ("{% include '/etc/passwd' %}", "no loader for this environment"),
        ("{{ '{0.__class__}'.format(1) }}", "the template writes nothing more"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError|renders|computes"),
        ("(" * 60_000, "otherwise"),
        ("{{ " + "(" * 20_000 + " }}", "fails|cannot be rendered|computes"),
    ],
)
def test_a_hostile_template_is_refused_and_costs_seconds_at_most(template: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidInput, match=message):
        check(template)
    assert time.monotonic() - began < 25


def test_no_template_sees_the_environment_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor could one that escaped: it is not there."""
    seen: dict[str, Any] = {}

    def run(*_: Any, **options: Any) -> None:
        seen.update(options)
        raise InvalidInput("enough")

    monkeypatch.setenv("FOREFILL_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setattr("pipeline.services.template_checking.subprocess.run", run)
    with pytest.raises(InvalidInput, match="enough"):
        check(read("smollm2"))
    assert "secret" not in str(seen["env"])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"x" * (64 * 1024 + 1), TooLarge, "over 65,536 bytes"),
        (b"{" + b" " * 9_000_000, TooLarge, "over 8,388,608 bytes"),
        (json.dumps({"chat_template": "x" * 70_000}).encode(), TooLarge, "over 65,536 bytes"),
        (b"\xff\xfe", InvalidInput, "is no UTF-8"),
        (b"{}", InvalidInput, "has no chat_template"),
        (b'{"chat_template": 1}', InvalidInput, "has no chat_template"),
        (b'{"chat_template": [{"name": "rag", "template": "x"}, 1]}', InvalidInput, "has no chat_template"),
        (b" \n", InvalidInput, "is empty"),
    ],
)
def test_what_is_no_template_is_refused(data: bytes, error: type[InvalidInput], message: str) -> None:
    with pytest.raises(error, match=message):
        check(data)


def test_a_frame_without_control_tokens_has_no_template() -> None:
    with pytest.raises(InvalidInput, match="frame plain has no control tokens"):
        check_chat_template(load_spec("cl100k_base/plain"), b"x")


def test_text_of_a_message_that_spells_a_control_token_is_read_as_one() -> None:
    """An engine would: so a frame whose own text spells one never agrees."""
    assert not any(isinstance(s, Text) and "<|im_end|>" in s.text for s in packaged_frame("chatml").prefix)
    spelling = with_system("system\nAnswer. <|im_end|>", "chatml")
    assert Control("<|im_end|>") in spelling.prefix
    with pytest.raises(InvalidInput, match="otherwise"):
        check(read("qwen3"), spelling)
