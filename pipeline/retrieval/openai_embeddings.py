"""Dense vectors from any service that speaks OpenAI's `/v1/embeddings`; sparse ones are still computed here.

The client library's errors become Forefill's by one table (`_translated`). What such services do in practice decides
the rest: they refuse empty strings, may return vectors out of order, of another length, or holding nulls.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import httpx
import numpy as np
import openai
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from pipeline.bounded_http import AnswerBounds, BoundedTransport, async_transport, proxy_for
from pipeline.errors import ForefillError, InvalidInput, Unavailable
from pipeline.retrieval.embedding import Embedding, SparseEncoder, unit_vectors

BATCH_TEXTS: Final = 64
"""Texts in one request: with passages of 8 KiB far below the services' limits."""

_SERVICE = "embedder"
_CONNECT_TIMEOUT_S = 2.0
_LEAST_BYTES = 64 * 1024
_BYTES_PER_NUMBER = 40
"""Twice what JSON needs for one."""


class OpenAIPassageEmbedder:
    """Embeds passages through the service, in batches; retries twice by itself, as workers may wait."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        dimension: int,
        sparse: SparseEncoder,
        timeout_s: float = 60.0,
    ) -> None:
        self.name = _name(model, dimension=dimension, sparse=sparse)
        self.dimension = dimension
        self._model = model
        self._sparse = sparse
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            timeout=_timeout(timeout_s),
            max_retries=2,
            http_client=httpx.Client(  # type: ignore[arg-type]  # the library takes both generations of httpx
                transport=BoundedTransport(_bounds(timeout_s, dimension), url=base_url, proxy=proxy_for(base_url))
            ),
        )

    def __repr__(self) -> str:
        return f"OpenAIPassageEmbedder({self.name}, {self._client.base_url})"

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed passages, in order; see `PassageEmbedder`."""
        dense = _Rows(texts, dimension=self.dimension)
        for batch in dense.batches():
            try:
                answer = self._client.embeddings.with_raw_response.create(
                    model=self._model, input=[texts[row] for row in batch], encoding_format="float"
                )
            except openai.OpenAIError as error:
                raise _translated(error) from error
            dense.fill(batch, body=answer.http_response.content)
        sparse = (self._sparse.encode_passage(text) for text in texts)
        return [Embedding(vector, terms) for vector, terms in zip(dense.unit(), sparse, strict=True)]

    def close(self) -> None:
        """Close pooled connections."""
        self._client.close()


class OpenAIQueryEmbedder:
    """Embeds questions through the service, without retries: somebody is waiting."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        dimension: int,
        sparse: SparseEncoder,
        timeout_s: float = 5.0,
    ) -> None:
        self.name = _name(model, dimension=dimension, sparse=sparse)
        self.dimension = dimension
        self._model = model
        self._sparse = sparse
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            timeout=_timeout(timeout_s),
            max_retries=0,
            http_client=httpx.AsyncClient(  # type: ignore[arg-type]  # the library takes both generations of httpx
                transport=async_transport(_bounds(timeout_s, dimension), url=base_url, limits=httpx.Limits())
            ),
        )

    def __repr__(self) -> str:
        return f"OpenAIQueryEmbedder({self.name}, {self._client.base_url})"

    async def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed questions, in order; see `QueryEmbedder`."""
        dense = _Rows(texts, dimension=self.dimension)
        for batch in dense.batches():
            try:
                answer = await self._client.embeddings.with_raw_response.create(
                    model=self._model, input=[texts[row] for row in batch], encoding_format="float"
                )
            except openai.OpenAIError as error:
                raise _translated(error) from error
            dense.fill(batch, body=answer.http_response.content)
        sparse = (self._sparse.encode_query(text) for text in texts)
        return [Embedding(vector, terms) for vector, terms in zip(dense.unit(), sparse, strict=True)]

    async def aclose(self) -> None:
        """Close pooled connections."""
        await self._client.close()


class _Item(BaseModel):
    index: int
    embedding: list[float | None]


class _Answer(BaseModel):
    """The part of an answer that is read; parsed here, as the client library takes any JSON for an answer."""

    data: list[_Item]


class _Rows:
    """The dense vectors of some texts while they arrive; white space is never sent."""

    def __init__(self, texts: Sequence[str], *, dimension: int) -> None:
        self._vectors = np.zeros((len(texts), dimension), dtype=np.float64)
        self._sent = [row for row, text in enumerate(texts) if text.strip()]

    def batches(self) -> Iterator[list[int]]:
        """Yield the rows of each request."""
        for start in range(0, len(self._sent), BATCH_TEXTS):
            yield self._sent[start : start + BATCH_TEXTS]

    def fill(self, batch: list[int], *, body: bytes) -> None:
        """Put one answer's vectors where they belong.

        Raises:
            Unavailable: It does not hold one vector of the configured length for each text.
        """
        try:
            vectors = {item.index: item.embedding for item in _Answer.model_validate_json(body).data}
        except ValidationError as error:
            raise Unavailable("the embedder's answer is no list of vectors", service=_SERVICE) from error
        if sorted(vectors) != list(range(len(batch))):
            raise Unavailable(f"the embedder answered {len(vectors)} vectors to {len(batch)} texts", service=_SERVICE)
        for index, vector in vectors.items():
            if len(vector) != self._vectors.shape[1]:
                raise Unavailable(
                    f"the embedder's vectors have {len(vector)} numbers, not the configured "
                    f"{self._vectors.shape[1]} (FOREFILL_EMBEDDINGS_DIMENSION)",
                    service=_SERVICE,
                )
            self._vectors[batch[index]] = np.array(vector, dtype=np.float64)  # null becomes NaN

    def unit(self) -> NDArray[np.float32]:
        """Return all rows, scaled to length 1, without NaN and zeros."""
        return unit_vectors(self._vectors)


def _name(model: str, *, dimension: int, sparse: SparseEncoder) -> str:
    return f"openai:{model}-{dimension}+{sparse.name}"


def _bounds(total_s: float, dimension: int) -> AnswerBounds:
    max_bytes = _LEAST_BYTES + BATCH_TEXTS * dimension * _BYTES_PER_NUMBER
    return AnswerBounds(_SERVICE, "the embedder", total_s=total_s, max_bytes=max_bytes)


def _timeout(total_s: float) -> openai.Timeout:
    return openai.Timeout(total_s, connect=min(total_s, _CONNECT_TIMEOUT_S))


def _translated(error: openai.OpenAIError) -> ForefillError:
    """Give an error of the client library its place in Forefill's tree; texts are never repeated in it."""
    match error:
        case openai.APIStatusError(status_code=status) if status >= 500 or status in {408, 409, 425, 429}:
            return Unavailable(
                f"the embedder answered {status}",
                service=_SERVICE,
                retry_after_s=_retry_after_s(error.response.headers.get("retry-after")),
            )
        case openai.APIStatusError(status_code=400 | 413 | 422 as status):
            return InvalidInput(f"the embedder refused a text with {status}")
        case openai.APIStatusError(status_code=status):
            return Unavailable(f"the embedder answered {status}: check its URL, API key and model", service=_SERVICE)
        case openai.APITimeoutError():
            return Unavailable("the embedder did not answer in time", service=_SERVICE)
        case openai.APIConnectionError():
            return Unavailable("the embedder cannot be reached", service=_SERVICE)
        case _:
            return Unavailable(
                f"the embedder's answer is no list of vectors ({type(error).__name__})", service=_SERVICE
            )


def _retry_after_s(header: str | None) -> float:
    """Return the seconds a service asks to wait, between 1 and 60; dates are not read."""
    try:
        seconds = float(header or 1)
    except ValueError:
        return 1.0
    return min(max(seconds, 1.0), 60.0) if math.isfinite(seconds) else 1.0
