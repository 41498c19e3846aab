"""A caller's own client: what is wrong with it is said before it is asked, or in one sentence afterwards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigurationError, Unavailable
from pipeline.generation import Completion, OwnClient, Usage

pytestmark = pytest.mark.anyio

PROMPT = [1, 2, 3]
WHOLE = Completion(text="Paris", finish_reason="length", usage=Usage(prompt_tokens=9, completion_tokens=8))


class Own:
    def __init__(self, answer: Any, *, tokens: Any = (4, 5)) -> None:
        self.answer, self.tokens = answer, tokens
        self.asked = 0

    async def tokenize(self, text: str) -> Any:  # noqa: ARG002  # the same for all texts
        return self.tokens

    async def generate_from_token_ids(self, prompt_token_ids: list[int], max_tokens: int = 16) -> Any:
        assert (prompt_token_ids, max_tokens) == (PROMPT, 7)
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Synchronous(Own):
    def tokenize(self, text: str) -> Any:  # noqa: ARG002  # the other shape
        return self.tokens

    def generate_from_token_ids(self, prompt_token_ids: list[int], **options: Any) -> Any:  # type: ignore[override]  # the same
        assert (prompt_token_ids, options) == (PROMPT, {"max_tokens": 7})
        return self.answer


async def asked(client: Any) -> Completion:
    return await OwnClient(client).generate_from_token_ids(PROMPT, max_tokens=7)


COUNTED = Usage(prompt_tokens=3, completion_tokens=2)
ONE = Usage(prompt_tokens=3, completion_tokens=1)
SAID = Usage(prompt_tokens=3, completion_tokens=1, cached_tokens=2)


@pytest.mark.parametrize("shape", [Own, Synchronous])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Paris", ("Paris", None, COUNTED, "stop")),
        ({"text": "Paris"}, ("Paris", None, COUNTED, "stop")),
        ({"text": "Paris", "token_ids": [6]}, ("Paris", (6,), ONE, "stop")),
        ({"text": "Paris", "token_ids": np.array([6]), "usage": None}, ("Paris", (6,), ONE, "stop")),
        (
            {
                "text": "Paris",
                "token_ids": [6],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "cached_tokens": 2},
                "finish_reason": "length",
            },
            ("Paris", (6,), SAID, "length"),
        ),
        ({"text": "", "token_ids": []}, ("", (), Usage(prompt_tokens=3, completion_tokens=0), "stop")),
        (WHOLE, ("Paris", None, WHOLE.usage, "length")),
    ],
)
async def test_an_answer_is_a_text_a_mapping_or_a_completion(
    shape: Callable[[Any], Any], answer: Any, expected: tuple[Any, ...]
) -> None:
    found = await asked(shape(answer))
    assert (found.text, found.token_ids, found.usage, found.finish_reason) == expected


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "returned None; it must be a str, a mapping with text, or a Completion"),
        (b"Paris", "returned bytes;"),
        ([1, 2], "returned list;"),
        ({"token_ids": [1]}, "returned dict;"),
        ({"text": b"Paris"}, "returned dict;"),
        ({"text": "a", "token_ids": "12"}, "returned str as token_ids instead of token ids"),
        ({"text": "a", "token_ids": [1.5]}, "returned token_ids with something else than token ids"),
        ({"text": "a", "token_ids": [-1]}, "returned token_ids with something else than token ids"),
        ({"text": "a", "usage": 7}, "returned a usage that is int"),
        ({"text": "a", "usage": {"completion_tokens": "7"}}, "returned a usage whose completion_tokens is no count"),
        ({"text": "a", "finish_reason": 1}, "returned a finish_reason that is int"),
        (ValueError("a secret"), "llm_client.generate_from_token_ids raised ValueError"),
    ],
)
async def test_every_other_answer_is_one_sentence(answer: Any, sentence: str) -> None:
    with pytest.raises(Unavailable) as raised:
        await asked(Own(answer))
    assert sentence in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_tokenizer_that_returns_something_else_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"llm_client\.tokenize returned NoneType|llm_client\.tokenize returned None"):
        await asked(Own("Paris", tokens=None))


def without(name: str) -> Any:
    methods = {"tokenize": Own.tokenize, "generate_from_token_ids": Own.generate_from_token_ids}
    del methods[name]
    return type("Half", (), methods)()


class TakesNoLimit(Own):
    async def generate_from_token_ids(self, prompt_token_ids: list[int]) -> Any:  # type: ignore[override]  # lacks what is sent
        raise AssertionError(prompt_token_ids)


@pytest.mark.parametrize(
    ("client", "sentence"),
    [
        (object(), r"llm_client \(object\) has no method tokenize"),
        (without("tokenize"), "has no method tokenize"),
        (without("generate_from_token_ids"), "has no method generate_from_token_ids"),
        (TakesNoLimit(""), "generate_from_token_ids cannot be called with a prompt's ids, max_tokens"),
    ],
)
def test_a_client_that_lacks_something_is_refused_before_anything_is_asked(client: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        OwnClient(client)


async def test_an_option_that_a_client_does_not_take_is_refused_before_it_is_asked() -> None:
    own = Own("Paris")
    with pytest.raises(ConfigurationError, match="cannot be called with a prompt's ids, max_tokens, temperature"):
        await OwnClient(own).generate_from_token_ids(PROMPT, max_tokens=7, temperature=0.5)
    assert own.asked == 0
