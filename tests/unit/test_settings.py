"""Settings are checked when they are read: one sentence that names the variable, and no part of a secret."""

import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.starting import require_startable
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings, load_settings

URLS = {
    "DATABASE_URL": "postgresql://user:{}@db.example:5432/forefill",
    "BROKER_URL": "redis://:{}@broker.example:6379/0",
    "CACHE_URL": "rediss://user:{}@cache.example:6379/0",
    "QDRANT_URL": "https://user:{}@qdrant.example:6333",
    "ENGINE_URL": "http://user:{}@engine.example:8000/v1",
    "EMBEDDINGS_URL": "http://user:{}@embeddings.example",
}
PASSWORDS = ["sesame#open", "sesame@open", "sesame/open", "12?sesame", "sesame%open", "sesame open", "sesame\topen"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting comes from anywhere else."""
    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith("FOREFILL_")]:
        monkeypatch.delenv(name)


def complaint(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    """Read settings with one that is wrong; return everything that a program could show of the error."""
    monkeypatch.setenv(f"FOREFILL_{name}", value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert str(refused.value).startswith(f"FOREFILL_{name}: ")
    assert "\n" not in str(refused.value)
    return "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", URLS)
def test_a_reserved_character_in_a_password_is_said_without_a_part_of_it(
    monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    said = complaint(monkeypatch, name, URLS[name].format(password))
    assert "sesame" not in said
    assert "open" not in said
    if "#" in password:
        assert "%23" in said


@pytest.mark.parametrize("name", URLS)
def test_a_bad_port_is_said_without_a_part_of_the_password(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    url = URLS[name].format("sesame").partition(".example")[0]
    for port in ("sesame", "0", "65536", "6379x"):
        said = complaint(monkeypatch, name, f"{url}.example:{port}")
        assert "port" in said
        assert "sesame" not in said


@pytest.mark.parametrize("name", URLS)
def test_an_encoded_password_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"FOREFILL_{name}", URLS[name].format("%23%40%3A%2F%3F%25"))
    load_settings()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "sqlite:////data/a#b@c/forefill.db"),
        ("DATABASE_URL", "postgresql+psycopg://postgres@/db?host=/run/postgresql&port=6432"),
        ("DATABASE_URL", "postgresql://u:p@[::1]:5432/db"),
        ("DATABASE_URL", "postgresql://u:p@one:5432,two:5432/db?target_session_attrs=read-write"),
        ("DATABASE_URL", "postgresql://db.example:5432/db?user=me@tenant"),
        ("BROKER_URL", "redis://broker"),
        ("CACHE_URL", "unix:///run/valkey.sock?db=0"),
        ("CACHE_URL", "rediss://u:p@cache:6379/1?ssl_cert_reqs=none&socket_timeout=0.5"),
        ("QDRANT_URL", "unix:///run/qdrant.sock"),
    ],
)
def test_every_way_to_write_a_store_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(f"FOREFILL_{name}", url)
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_URL", "broker:6379"),
        ("BROKER_URL", "redis://broker/entries"),
        ("CACHE_URL", "redis://cache?socket_timeout=soon"),
        ("QDRANT_URL", "http://"),
        ("DATABASE_URL", "mysql://u:p@h/db"),
        ("API_PORT", "eighty"),
        ("LOG_LEVEL", "LOUD"),
        ("ALLOWED_ORIGINS", "*"),
    ],
)
def test_every_setting_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    complaint(monkeypatch, name, value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"FOREFILL_MODEL=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"\.env: cannot be read"):
        load_settings()


def test_settings_show_no_password() -> None:
    settings = Settings(database_url="postgresql://u:sesame@h/db", broker_url="redis://:sesame@h")
    assert "sesame" not in repr(settings)
    with pytest.raises(ValidationError) as refused:
        Settings(database_url="postgresql://u:sesame@open@h/db")
    assert "sesame" not in str(refused.value)


PROCESSES = [
    pytest.param(["pipeline.cli", "status"], id="command"),
    pytest.param(["celery", "-A", "workers.main", "worker"], id="worker", marks=pytest.mark.long),
    pytest.param(["workers.dispatcher"], id="dispatcher", marks=pytest.mark.long),
    pytest.param(["celery", "-A", "workers.main", "flower"], id="flower", marks=pytest.mark.long),
    pytest.param(["api"], id="api", marks=pytest.mark.long),
    pytest.param(["pipeline.retrieval.owner"], id="qdrant", marks=pytest.mark.long),
]


def run(arguments: list[str], variables: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "variables",
    [{"FOREFILL_ENGINE_KIND": "vllm"}, {"FOREFILL_ENGINE_URL": "http://h:1"}, {"FOREFILL_EMBEDDER": "openai"}],
)
def test_an_api_without_a_setting_that_it_needs_does_not_begin(
    variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="needs FOREFILL_"):
        require_startable(load_settings())


@pytest.mark.parametrize("module", PROCESSES)
def test_no_process_shows_a_traceback_for_a_setting(module: list[str], tmp_path: Path) -> None:
    ended = run(["-m", *module], {"FOREFILL_BROKER_URL": "redis://:sesame#open@h:6379/0"}, tmp_path)
    said = ended.stderr.strip()
    assert ended.returncode != 0
    assert said.count("\n") == 0, said
    assert "FOREFILL_BROKER_URL" in said
    assert "%23" in said
    assert "sesame" not in said
