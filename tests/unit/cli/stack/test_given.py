"""What `forefill up` was given holds for the commands of its folder, and what a command is given itself wins."""

import stat
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from pipeline.cli.stack.given import keep_given
from pipeline.settings import ENVIRONMENT_FILE, GIVEN_FILE, Settings, load_settings

ENGINE = {
    "FOREFILL_ENGINE_KIND": "vllm",
    "FOREFILL_ENGINE_URL": "http://127.0.0.1:8000/v1",
    "FOREFILL_ENGINE_API_KEY": 'it\'s ${HOME} \\ # "secret"',
    "FOREFILL_MODEL": "m",
    "FOREFILL_SPEC": "cl100k_base/plain",
    "FOREFILL_EMBEDDER": "openai",
    "FOREFILL_EMBEDDINGS_URL": "http://127.0.0.1:9000",
    "FOREFILL_ENGINE_HANDSHAKE": "false",
    "FOREFILL_ALLOWED_HOSTS": "a.example,b.example",
    "FOREFILL_AUDIT_EVERY": "0",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a `.env`, and a folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def started_with(folder: Path, environment: dict[str, str], *, flags: dict[str, str] | None = None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        keep_given(folder, load_settings(), flags=flags or {})


def test_what_up_was_given_holds_for_the_commands_of_its_folder(tmp_path: Path) -> None:
    started_with(tmp_path, ENGINE, flags={"FOREFILL_WORKER_CONCURRENCY": "7"})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENGINE.items():
            patch.setenv(name, value)
        expected = load_settings()
    found = load_settings(tmp_path)
    assert found == expected.model_copy(update={"worker_concurrency": 7})
    assert found.engine_api_key is not None
    assert found.engine_api_key.get_secret_value() == ENGINE["FOREFILL_ENGINE_API_KEY"]
    assert stat.S_IMODE((tmp_path / GIVEN_FILE).stat().st_mode) == 0o600


def test_what_a_command_is_given_itself_wins_and_what_the_folder_says_of_its_stores_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ENVIRONMENT_FILE).write_text("FOREFILL_CACHE_URL='redis://kept:1/0'\nFOREFILL_MODEL='of the file'\n")
    started_with(tmp_path, {**ENGINE, "FOREFILL_CACHE_URL": "redis://given:1/0", "FOREFILL_API_PORT": "1"})
    found = load_settings(tmp_path)
    assert (found.cache_url, found.model, found.api_port) == ("redis://kept:1/0", "of the file", 8080)
    monkeypatch.setenv("FOREFILL_ENGINE_KIND", "mock")
    monkeypatch.setenv("FOREFILL_MODEL", "own")
    assert (load_settings(tmp_path).engine_kind, load_settings(tmp_path).model) == ("mock", "own")


def test_what_is_not_given_again_is_gone(tmp_path: Path) -> None:
    started_with(tmp_path, ENGINE)
    started_with(tmp_path, {})
    assert load_settings(tmp_path) == load_settings()


@drawn(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1))
def test_any_secret_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, secret: str) -> None:
    folder = tmp_path_factory.mktemp("given")
    given = Settings(_env_file=None, engine_api_key=secret)  # type: ignore[arg-type, call-arg]  # as the environment would
    keep_given(folder, given, flags={})
    found = load_settings(folder).engine_api_key
    assert found is not None
    assert found.get_secret_value() == secret
