"""Typed settings from `FOREFILL_…` variables, a `.env` file, or a data directory.

Read once by an entry point (`load_settings`) and handed down; no module reads the environment at import. What is wrong
with one is said in a sentence that names the variable and quotes no secret.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from pipeline.errors import ConfigurationError

MIB = 1024 * 1024

DATA_DIR_VARIABLE = "FOREFILL_DATA_DIR"
"""Names the data directory for processes started by others."""

ENVIRONMENT_FILE = "forefill.env"
"""Name of the file inside a data directory that holds that stack's settings."""

GIVEN_FILE = "forefill-given.env"
"""Name of the file beside it that holds what the last `forefill up` was given by its environment and flags."""


_NAME = r"(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
_HOST_NAME = re.compile(_NAME)
_ORIGIN = re.compile(rf"https?://{_NAME}(?::[0-9]{{1,5}})?")

_PLACE = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:]*)(?::([0-9]{1,5}))?")
"""Host and port of a URL."""
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_PORT = 65_535
_REDIS_NUMBERS = {"socket_timeout", "socket_connect_timeout", "max_connections", "health_check_interval", "db"}
_PASSWORD_HINT = "in a password write # as %23, @ as %40, : as %3A, / as %2F and ? as %3F"  # noqa: S105  # is none


class Settings(BaseSettings):
    """Everything a process needs to know, with units in the names."""

    model_config = SettingsConfigDict(
        env_prefix="FOREFILL_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: Annotated[str, Field(repr=False)] = "sqlite:///forefill.db"
    """SQLAlchemy URL: `sqlite:///PATH` or `postgresql+psycopg://…` (`postgresql://` is accepted)."""
    broker_url: Annotated[str, Field(repr=False)] = "redis://127.0.0.1:6379/0"
    """Celery's broker: its own Redis or Valkey, never the cache."""
    cache_url: Annotated[str, Field(repr=False)] = "redis://127.0.0.1:6380/0"
    """Redis or Valkey that holds token entries."""
    qdrant_url: str = "http://127.0.0.1:6333"
    """Qdrant's REST address: a server, a cluster, or `forefill qdrant` (the embedded engine)."""
    qdrant_api_key: SecretStr | None = None
    """Sent to Qdrant as `api-key`; the embedded owner requires one."""
    qdrant_data_dir: Path = Path("forefill-qdrant")
    """Folder of the embedded engine's shards; only `forefill qdrant` opens it."""

    spec: str = "o200k_base/plain"
    """Token spec of corpora that name none: `ENCODING/FRAME`."""
    fast_tokenizer: Literal["auto", "off"] = "auto"
    """`auto`: workers tokenize with gigatoken where it is installed and gives the same ids. `off`: never."""
    spec_validation_contexts: Annotated[int, Field(ge=1_000, le=10_000_000)] = 20_000
    """Generated prompts that a spec must give exact ids before it is added."""
    max_context_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 8192
    """Token budget of a prompt's context when the request names none."""
    enable_token_caching: bool = True
    """False: every query tokenizes; same ids, slower."""
    token_caching_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of queries that use the cache, for a gradual rollout."""
    ttl_policy: Literal["none", "fixed"] = "none"
    """`none`: entries written by workers never expire. `fixed`: they expire after `cache_ttl` seconds."""
    cache_ttl: Annotated[int, Field(ge=1)] = 86_400
    """Seconds an entry written back after a miss lives; with `fixed`, worker entries too."""
    audit_every: Annotated[int, Field(ge=0)] = 500
    """One in so many prompts, and the first few of a process, wait to be compared with the reference ids; 0 = none."""
    entry_hmac_key: SecretStr | None = None
    """When set, every entry carries an HMAC under this key and entries without one are misses."""
    l1_max_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    """Bytes of decoded token ids a process keeps in memory."""
    cache_timeout_s: Annotated[float, Field(gt=0)] = 0.25
    """Seconds the read path waits for the cache before it tokenizes by itself."""

    vector_db_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds that a search of your own `vector_db` may take (`TokenCachedRAG`)."""

    embedder: Literal["static-hybrid", "openai"] = "static-hybrid"
    """Passage and query vectors: packaged static vectors plus BM25, or an OpenAI-compatible endpoint plus BM25."""
    embeddings_url: HttpUrl | None = None
    """Base URL of an OpenAI-compatible `/v1/embeddings` service."""
    embeddings_api_key: SecretStr | None = None
    """Its API key."""
    embeddings_model: str = "text-embedding-3-small"
    """Its model name."""
    embeddings_dimension: Annotated[int, Field(ge=2, le=65_536)] = 1536
    """Length of its vectors."""

    engine_kind: Literal["vllm", "sglang", "llamacpp", "openai", "anthropic", "mock"] | None = None
    """What answers prompts: an engine that takes token ids, a hosted API that takes text, or a deterministic mock."""
    engine_url: HttpUrl | None = None
    """Base URL of the engine, with or without `/v1`; hosted APIs have a default."""
    engine_api_key: SecretStr | None = None
    """Its API key."""
    model: str | None = None
    """Its model; may be left out where the engine serves only one."""
    engine_window_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of prompt and answer together, where the engine does not say it itself."""
    engine_handshake: bool = True
    """False: trust that the engine's token ids mean what the corpus' spec means, without comparing them."""
    engine_connect_timeout_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds a connection to the engine may take."""
    engine_first_token_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds from a prompt to the first part of its streamed answer: queueing and prefill."""
    engine_between_tokens_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds from one part of a streamed answer to the next."""
    engine_total_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds a whole answer may take, streamed or not."""

    api_host: str = "127.0.0.1"
    """Address the API listens on. Without API keys only loopback is allowed."""
    api_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port the API listens on."""
    api_processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve the API on that port; about one per core that questions may have."""
    max_connections: Annotated[int, Field(ge=16, le=100_000)] = 1000
    """Open connections of one API process, and of `forefill qdrant`; a newcomer gets the place of one that waits."""
    request_head_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds from a connection, or the first byte of its next request, to the end of the request's head."""
    request_body_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds a body, or the reading of an answer, may stand still; in whole a second more for each 8 KiB."""
    idle_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 20.0
    """Seconds a connection is kept between two requests."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """With API keys: names that `Host` may say beside loopback, parted by commas; empty for any."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """With API keys: other origins whose pages may ask, as `https://app.example.com`, parted by commas."""
    snapshot_path: Path | None = None
    """File in which an API process keeps its last good configuration for starts without SQL."""

    lease_s: Annotated[float, Field(ge=1)] = 30.0
    """Seconds a worker owns a job without a heartbeat."""
    heartbeat_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between a worker's heartbeats."""
    dispatch_interval_s: Annotated[float, Field(gt=0)] = 0.5
    """Seconds between two looks of the dispatcher at pending jobs when nothing nudges it."""
    republish_s: Annotated[float, Field(gt=0)] = 15.0
    """Seconds after which a published job that nobody claimed is published again."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Failed attempts after which a document is dead."""
    max_deliveries: Annotated[int, Field(ge=2)] = 5
    """Interrupted deliveries of one job after which the document named by its breadcrumb is dead."""
    job_time_limit_s: Annotated[float, Field(ge=3, le=240)] = 60.0
    """Seconds after which a hung job's process is killed, interrupted at five sixths; below the visibility timeout."""
    run_retention_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    """Days that ended runs and the rows of deleted documents are kept; failed and partial runs three times as long."""
    worker_concurrency: Annotated[int, Field(ge=1, le=256)] = 2
    """Prefork children of one worker."""
    visibility_timeout_s: Annotated[int, Field(ge=3)] = 300
    """Seconds after which the broker redelivers an unacknowledged message; equal on all workers."""
    worker_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Loopback port on which a worker exports what its children count; 0 = none. Each worker of a host has its own."""
    soft_shutdown_s: Annotated[float, Field(ge=0)] = 3.0
    """Seconds a worker may finish its jobs after SIGTERM."""

    max_request_documents: Annotated[int, Field(ge=1)] = 1000
    """Documents in one PUT."""
    max_request_bytes: Annotated[int, Field(ge=1)] = 32 * MIB
    """Bytes of one request body."""
    max_document_bytes: Annotated[int, Field(ge=1)] = 8 * MIB
    """UTF-8 bytes of one document's text."""
    max_metadata_bytes: Annotated[int, Field(ge=1)] = 64 * 1024
    """Bytes of one document's metadata as JSON."""
    max_query_bytes: Annotated[int, Field(ge=1)] = 8 * 1024
    """UTF-8 bytes of one query."""
    max_batch_queries: Annotated[int, Field(ge=1)] = 64
    """Queries in one batch."""
    flower_writable: bool = False
    """Whether Flower's buttons may revoke tasks and stop workers."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _host_names(cls, value: object) -> object:
        return _listed(value, _HOST_NAME, "is no host name; write names or addresses without scheme and port")

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return _listed(value, _ORIGIN, "is no origin; write each as https://app.example.com, and never *")

    @field_validator("database_url")
    @classmethod
    def _with_driver(cls, url: str) -> str:
        if not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("write sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME")
        if not url.startswith("sqlite:"):
            _check_url(url, "postgresql", "postgresql+psycopg")
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    @field_validator("broker_url", "cache_url")
    @classmethod
    def _redis(cls, url: str, info: ValidationInfo) -> str:
        sockets = () if info.field_name == "broker_url" else ("unix",)  # Celery's transport names them otherwise
        tail = _check_url(url, "redis", "rediss", *sockets)
        path, _, query = tail.partition("?")
        if not url.startswith("unix:") and not re.fullmatch(r"(/[0-9]*)?", path):
            raise ValueError("behind the port only the number of a database may follow: redis://:PASSWORD@HOST:PORT/0")
        for name, value in parse_qsl(query):
            if name in _REDIS_NUMBERS and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
                raise ValueError(f"its option {name} is no number")
        return url

    @field_validator("qdrant_url")
    @classmethod
    def _qdrant(cls, url: str) -> str:
        _check_url(url, "http", "https", "unix")
        return url

    @field_validator("engine_url", "embeddings_url", mode="before")
    @classmethod
    def _service(cls, url: object) -> object:
        if isinstance(url, str):
            _check_url(url, "http", "https")
        return url


def _check_url(url: str, *schemes: str) -> str:
    """Refuse a URL that its libraries would take apart in different ways; return what stands behind host and port.

    They cut a password at its first reserved character, take the rest for a host or a port, and quote that in errors.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"begin it with {' or '.join(f'{each}://' for each in schemes)}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    login, _, places = authority.rpartition("@")
    path = tail.partition("?")[0]
    if not url.isprintable() or " " in url:
        raise ValueError("it holds a blank or a control character")
    if "#" in rest:
        raise ValueError(f"it holds a #; {_PASSWORD_HINT}")
    if "@" in login:
        raise ValueError(f"it holds more than one @; {_PASSWORD_HINT}")
    if _LONE_PERCENT.search(rest):
        raise ValueError("it holds a % without two hexadecimal digits behind it; in a password write % as %25")
    if scheme != "unix" and ("@" in path or ("@" in tail and "=" not in tail.partition("@")[0])):
        raise ValueError(f"its host or port is none; {_PASSWORD_HINT}")
    _check_places(places, needed=scheme in {"http", "https"})
    return tail


def _check_places(places: str, *, needed: bool) -> None:
    """Refuse hosts or ports that are none; PostgreSQL takes several."""
    for place in places.split(","):
        match = _PLACE.fullmatch(place)
        if match is None or int(match[1] or 1) not in range(1, _MAX_PORT + 1):
            raise ValueError(f"its host or port cannot be read (a port is 1 to {_MAX_PORT}); {_PASSWORD_HINT}")
        if needed and not place.partition(":")[0]:
            raise ValueError("it names no host")


def _listed(value: object, pattern: re.Pattern[str], complaint: str) -> object:
    """Return what a comma-separated setting lists, in lower case; every entry must match."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return value
    entries = tuple(part.strip().lower() for part in parts if part.strip())
    for entry in entries:
        if pattern.fullmatch(entry) is None:
            raise ValueError(f"{entry!r} {complaint}")
    return entries


def load_settings(data_dir: Path | None = None) -> Settings:
    """Read the settings of this process.

    Args:
        data_dir: Folder of an embedded stack, by default what `FOREFILL_DATA_DIR` says. What it holds comes after the
            environment and `.env`, and before defaults: first `forefill.env`, then what its `up` was given.

    Raises:
        ConfigurationError: A value is malformed; the message names the variable.
    """
    if data_dir is None and (named := os.environ.get(DATA_DIR_VARIABLE)):
        data_dir = Path(named)
    own = () if data_dir is None else (data_dir / GIVEN_FILE, data_dir / ENVIRONMENT_FILE)
    files = (*own, Path(".env"))  # the last one wins
    try:
        return Settings(_env_file=files)  # type: ignore[call-arg]  # pydantic-settings' own argument
    except ValidationError as error:
        first = error.errors()[0]
        name = "FOREFILL_" + ".".join(str(part) for part in first["loc"]).upper()
        sentence = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        name = " and ".join(str(file) for file in files)
        sentence = f"cannot be read as UTF-8 text with one NAME=VALUE a line ({type(error).__name__})"
    # Outside of the handlers: an error that is shown with its causes must not show the values either.
    raise ConfigurationError(f"{name}: {sentence}")


def load_settings_or_exit(process: str) -> Settings:
    """Read the settings of a process that others import; end it with one sentence if one is malformed.

    Args:
        process: What is said to have failed: `worker`, `dispatcher`, …

    Raises:
        SystemExit: A value is malformed.
    """
    try:
        return load_settings()
    except ConfigurationError as error:
        sys.exit(f"forefill {process}: {error}")
