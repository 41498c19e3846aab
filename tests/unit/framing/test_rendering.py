from dataclasses import replace

from pipeline.framing import (
    Control,
    Text,
    context_segments,
    packaged_frame,
    prompt_segments,
    right_neighbours,
    segments_as_data,
)

PLAIN = packaged_frame("plain")


def test_a_prompt_is_frame_passages_and_question() -> None:
    assert segments_as_data(prompt_segments(PLAIN, ["one", "two"], "why?")) == [
        {
            "text": "Answer the question using the documents below.\n\n"
            "Document 1\none\n\nDocument 2\ntwo\n\nQuestion: why?\n\nAnswer:"
        }
    ]


def test_a_frame_renders_with_no_passages() -> None:
    assert context_segments(PLAIN, []) == [Text("Answer the question using the documents below.\n\n")]


def test_a_context_of_plain_text_may_also_end() -> None:
    assert right_neighbours(PLAIN) == ("D", "Q", "")


def test_a_context_of_a_chat_never_ends_by_itself() -> None:
    chat = replace(PLAIN, suffix=(Control("<|im_end|>"),))
    assert right_neighbours(chat) == ("D", "Q")
