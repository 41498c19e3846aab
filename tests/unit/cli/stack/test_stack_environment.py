"""`forefill.env`: made once, kept, and never at odds with the environment without a word."""

import stat
from pathlib import Path

import pytest

from pipeline.cli.stack.contradictions import require_consistent
from pipeline.cli.stack.environment import StackSettings, Wishes, choose_database, prepare_settings, read_variables
from pipeline.errors import ConfigurationError
from pipeline.settings import ENVIRONMENT_FILE, Settings
from tests.support.ports import free_port

SECRETS = ("FOREFILL_QDRANT_API_KEY", "FOREFILL_ENTRY_HMAC_KEY")


def prepare(folder: Path, *, api_port: int = 0, flower_port: int | None = None) -> StackSettings:
    kept = read_variables(folder)
    return prepare_settings(folder, kept, Wishes(choose_database(folder, kept, given=None), api_port, flower_port))


def given(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type, call-arg]  # as the environment would give them


def test_the_file_is_private_and_complete(tmp_path: Path) -> None:
    made = prepare(tmp_path)
    assert stat.S_IMODE((tmp_path / ENVIRONMENT_FILE).stat().st_mode) == 0o600
    assert read_variables(tmp_path) == dict(made.variables)
    assert made.variables["FOREFILL_DATABASE_URL"] == f"sqlite:///{tmp_path}/forefill.db"


def test_every_port_and_every_secret_is_its_own(tmp_path: Path) -> None:
    made = prepare(tmp_path)
    ports = [made.broker_port, made.cache_port, made.qdrant_port, made.api_port, made.flower_port]
    ports += [made.interactive_metrics_port, made.bulk_metrics_port]
    secrets = [made.broker_password, made.cache_password, *(made.variables[name] for name in SECRETS)]
    assert len(set(ports)) == len(ports)
    assert len(set(secrets)) == len(secrets)
    assert min(map(len, secrets)) >= 32


def test_secrets_ports_and_lines_of_the_user_stay(tmp_path: Path) -> None:
    first = prepare(tmp_path)
    with (tmp_path / ENVIRONMENT_FILE).open("a") as file:
        file.write("FOREFILL_CACHE_TTL=77\n")
    second = prepare(tmp_path, api_port=first.api_port)
    assert dict(second.variables) == {**first.variables, "FOREFILL_CACHE_TTL": "77"}


def test_a_folder_that_was_moved_takes_its_database_along(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    prepare(tmp_path / "old")
    new = (tmp_path / "old").rename(tmp_path / "new")
    assert prepare(new).variables["FOREFILL_DATABASE_URL"] == f"sqlite:///{new}/forefill.db"


def test_a_given_database_is_remembered(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:secret@db/forefill"
    assert choose_database(tmp_path, {}, given=url) == url
    assert choose_database(tmp_path, {"FOREFILL_DATABASE_URL": url}, given=None) == url


def test_a_relative_sqlite_file_means_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_database(tmp_path, {}, given="sqlite:///own.db") == f"sqlite:///{tmp_path}/own.db"


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must name a file"):
        choose_database(tmp_path, {}, given="sqlite:///:memory:")


def test_one_port_for_two_services_is_refused(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ConfigurationError, match=f"port {port} for Flower is taken"):
        prepare(tmp_path, api_port=port, flower_port=port)
    assert not (tmp_path / ENVIRONMENT_FILE).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_url", "redis://elsewhere:6379/0"),
        ("cache_url", "redis://elsewhere:6379/0"),
        ("qdrant_url", "http://elsewhere:6333"),
        ("qdrant_api_key", "other"),
        ("entry_hmac_key", "other"),
        ("api_host", "0.0.0.0"),
        ("database_url", "sqlite:////elsewhere.db"),
    ],
)
def test_what_the_stack_would_have_to_ignore_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    kept = prepare(tmp_path).variables
    with pytest.raises(ConfigurationError, match=f"^FOREFILL_{name.upper()} "):
        require_consistent(given(**{name: value}), kept, tmp_path)


def test_the_folder_s_own_file_as_environment_is_welcome(tmp_path: Path) -> None:
    kept = prepare(tmp_path).variables
    values = {name.removeprefix("FOREFILL_").lower(): value for name, value in kept.items()}
    require_consistent(given(**values), kept, tmp_path)
