import json
from typing import Any

import pytest

from pipeline.errors import InvalidInput
from pipeline.framing import Control, Frame, Text, known_frames, packaged_frame, parse_frame, prompt_segments

CHAT = {
    "name": "chat",
    "prefix": [{"control": "<|im_start|>"}, {"text": "user\n"}],
    "header": "Document {n}\n",
    "separator": "\n\n",
    "question_prefix": "Question: ",
    "suffix": [{"control": "<|im_end|>"}, {"text": "\n"}, {"control": "<|im_start|>"}, {"text": "assistant\n"}],
}


def test_plain_is_packaged_and_has_no_control_tokens() -> None:
    plain = packaged_frame("plain")
    assert plain.prefix == (Text("Answer the question using the documents below.\n\n"),)
    assert (plain.header, plain.separator, plain.question_prefix) == ("Document {n}\n", "\n\n", "Question: ")
    assert plain.suffix == (Text("\n\nAnswer:"),)
    assert not plain.has_controls


def test_every_packaged_frame_is_named_as_its_file() -> None:
    assert [packaged_frame(name).name for name in known_frames()] == known_frames()


def test_an_unknown_frame_is_refused_with_the_known_names() -> None:
    with pytest.raises(InvalidInput, match=r"'../plain'; known: .*plain"):
        packaged_frame("../plain")


def test_a_frame_survives_its_canonical_json() -> None:
    frame = parse_frame(json.dumps(CHAT))
    assert frame.prefix == (Control("<|im_start|>"), Text("user\n"))
    assert frame.has_controls
    assert parse_frame(frame.canonical_json()) == frame


def test_canonical_json_is_the_same_however_texts_are_divided() -> None:
    def divided(*prefix: str) -> Frame:
        return Frame(
            name="x",
            prefix=tuple(map(Text, prefix)),
            header="Document {n}\n",
            separator="\n",
            question_prefix="Q",
            suffix=(),
        )

    assert divided("a", "b\n").canonical_json() == divided("ab\n").canonical_json()


def test_a_header_is_numbered_without_touching_other_braces() -> None:
    frame = parse_frame(json.dumps(CHAT | {"header": "Doc {n} {x} {}\n"}))
    assert frame.header_text(12) == "Doc 12 {x} {}\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("name", ""),
        ("name", 1),
        ("header", "Document\n"),
        ("header", "Document {n}"),
        ("header", "{n}\n"),
        ("header", ""),
        ("separator", ""),
        ("separator", "\n--"),
        ("question_prefix", ""),
        ("question_prefix", " Question: "),
        ("question_prefix", "12"),
        ("prefix", [{"text": "no line feed"}]),
        ("prefix", {"text": "\n"}),
        ("prefix", "text"),
        ("prefix", [{"text": "\n", "control": "x"}]),
        ("suffix", [{"text": 1}]),
        ("suffix", ["text"]),
    ],
)
def test_a_frame_whose_seams_no_tokenizer_could_respect_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_frame(json.dumps(CHAT | {field: value}))
    assert refusal.value.item == field


@pytest.mark.parametrize("data", ["", "[]", "null", "{}", json.dumps(CHAT | {"more": 1}), '{"name": "\\ud800"}'])
def test_what_is_no_frame_is_refused(data: str) -> None:
    with pytest.raises(InvalidInput):
        parse_frame(data)


@pytest.mark.parametrize("name", known_frames())
def test_packaged_frames_are_called_after_their_files_and_read_back(name: str) -> None:
    frame = packaged_frame(name)
    assert frame.name == name
    assert parse_frame(frame.canonical_json()) == frame


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        (
            "chatml",
            (
                "<|im_start|>system\nAnswer the question using the documents below.<|im_end|>\n"
                "<|im_start|>user\nDocument 1\ntext\n\nQuestion: why?<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (
            "llama3",
            (
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
                "Answer the question using the documents below.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
                "Document 1\ntext\n\nQuestion: why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
        ),
        (
            "harmony",
            (
                "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
                "Knowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
                "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
                "<|start|>developer<|message|># Instructions\n\nAnswer the question using the documents below.<|end|>"
                "<|start|>user<|message|>Document 1\ntext\n\nQuestion: why?<|end|><|start|>assistant"
            ),
        ),
    ],
)
def test_chat_frames_render_as_their_models_templates_do(name: str, rendered: str) -> None:
    segments = prompt_segments(packaged_frame(name), ["text"], "why?")
    assert "".join(s.name if isinstance(s, Control) else s.text for s in segments) == rendered
    controls = {s.name for s in segments if isinstance(s, Control)}
    assert not any(name in s.text for name in controls for s in segments if isinstance(s, Text))
