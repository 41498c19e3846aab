"""Every engine's client is exported, and made in one line from a URL or a key."""

import subprocess
import sys
from typing import Any

import pytest

import pipeline.generation
from pipeline.errors import ConfigurationError
from pipeline.generation import (
    AnthropicClient,
    GenerationClient,
    LlamaCppClient,
    MockClient,
    OpenAIClient,
    SGLangClient,
    VLLMClient,
)

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("make", "kind", "takes"),
    [
        (lambda: VLLMClient(URL), "vllm", "token_ids"),
        (lambda: SGLangClient(f"{URL}/v1/"), "sglang", "token_ids"),
        (lambda: LlamaCppClient(URL, model="m", api_key="k"), "llamacpp", "token_ids"),
        (lambda: OpenAIClient("sk-1"), "openai", "text"),
        (lambda: OpenAIClient(URL), "openai", "text"),
        (lambda: AnthropicClient("sk-ant-1"), "anthropic", "text"),
        (lambda: AnthropicClient(URL, model="m"), "anthropic", "text"),
        (MockClient, "mock", "token_ids"),
    ],
)
async def test_a_client_is_one_line(make: Any, kind: str, takes: str) -> None:
    client = make()
    assert isinstance(client, GenerationClient)
    assert (client.engine.kind, client.engine.takes) == (kind, takes)
    assert "sk-" not in repr(client)
    await client.aclose()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "sk-secret", "", "http://", "http://host:port", None])
@pytest.mark.parametrize("make", [VLLMClient, SGLangClient, LlamaCppClient])
def test_what_is_no_url_is_one_sentence_that_does_not_repeat_it(make: Any, url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"like http://127\.0\.0\.1:8000") as raised:
        make(url)
    assert "secret" not in str(raised.value)


async def test_a_mock_answers_by_itself() -> None:
    answer = await MockClient().generate_from_token_ids([1, 2, 3], max_tokens=50)
    assert "a prompt of 3 token ids" in answer.text


def test_clients_are_exported_and_those_with_libraries_cost_nothing_until_they_are_asked_for() -> None:
    assert {"VLLMClient", "SGLangClient", "LlamaCppClient", "OpenAIClient", "AnthropicClient", "MockClient"} <= set(
        pipeline.generation.__all__
    )
    asked = "import sys, pipeline.generation; print(sorted({'httpx', 'openai'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
