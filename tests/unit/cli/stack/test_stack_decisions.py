"""Back-off, ports, private files, Flower's configuration."""

import socket
import stat
from pathlib import Path

import pytest

from pipeline.cli.stack.backoff import STABLE_S, backoff_s, count_crash
from pipeline.cli.stack.flower_conf import FlowerOptions, ensure_auth_file, read_logins, write_flower_conf
from pipeline.cli.stack.ports import LOOPBACK, free_port, is_free, require_free
from pipeline.cli.stack.private_files import write_private
from pipeline.cli.stack.worker_metrics import empty_folder, worker_environment
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings
from pipeline.telemetry.metrics import FOLDER_VARIABLE


def test_each_crash_in_a_row_waits_longer_up_to_half_a_minute() -> None:
    waits = [backoff_s(crashes) for crashes in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (0.0, 0.2, 30.0)


def test_a_process_that_lived_a_minute_starts_with_a_clean_record() -> None:
    assert count_crash(7, lived_s=STABLE_S) == 1
    assert count_crash(7, lived_s=STABLE_S - 1) == 8


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port, patience_s=0.0)
        with pytest.raises(
            ConfigurationError, match=f"port {port} for the API is taken: choose another one with --port"
        ):
            require_free(port, purpose="the API", option="--port")
    assert is_free(port)


def test_free_ports_are_none_that_systems_lend_to_clients() -> None:
    ports = {free_port(taken=frozenset()) for _ in range(50)}
    assert max(ports) < 32_768
    assert len(ports) > 1


def test_a_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def options(folder: Path, **values: object) -> FlowerOptions:
    login = folder / "login"
    ensure_auth_file(login)
    defaults = {"folder": folder / "flower", "auth_file": login, "host": LOOPBACK, "port": 5555, "writable": False}
    return FlowerOptions(**{**defaults, **values})  # type: ignore[arg-type]  # as named above


def conf(path: Path) -> dict[str, object]:
    values: dict[str, object] = {}
    exec(path.read_text(), values)  # as Flower does
    return values


def test_flower_is_on_loopback_with_a_login_bounded_persistent_and_read_only(tmp_path: Path) -> None:
    values = conf(write_flower_conf(options(tmp_path)))
    assert values["address"] == LOOPBACK
    assert values["basic_auth"] == read_logins(tmp_path / "login")
    assert values["read_only"] is True
    assert values["persistent"] is True
    assert values["max_tasks"] == 10_000


def test_flower_can_be_made_writable(tmp_path: Path) -> None:
    assert conf(write_flower_conf(options(tmp_path, writable=True)))["read_only"] is False


def test_flower_s_login_and_cookies_outlive_a_restart(tmp_path: Path) -> None:
    first, second = (conf(write_flower_conf(options(tmp_path))) for _ in range(2))
    assert first["cookie_secret"] == second["cookie_secret"]
    assert first["basic_auth"] == second["basic_auth"]


def test_flower_s_files_are_private(tmp_path: Path) -> None:
    path = write_flower_conf(options(tmp_path))
    for secret in (path, tmp_path / "login", path.with_name("cookie-secret")):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "nobody\n", "user:\n", ":password\n", "good:one\nbad\n"])
def test_flower_without_a_proper_login_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "login").write_text(text)
    with pytest.raises(ConfigurationError, match="must hold one USER:PASSWORD a line"):
        read_logins(tmp_path / "login")


def test_counts_of_an_earlier_worker_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "metrics" / "bulk"
    empty_folder(folder)
    (folder / "counter_1.db").touch()
    empty_folder(folder)
    assert list(folder.iterdir()) == []


def test_a_worker_without_a_metrics_port_keeps_its_counts_to_itself() -> None:
    assert worker_environment(Settings(_env_file=None)) == {}  # type: ignore[call-arg]  # pydantic-settings' own argument


def test_a_worker_with_a_metrics_port_gets_a_folder_of_its_own() -> None:
    settings = Settings(_env_file=None, worker_metrics_port=1)  # type: ignore[call-arg]  # the same
    folder = Path(worker_environment(settings)[FOLDER_VARIABLE])
    assert list(folder.iterdir()) == []
    folder.rmdir()
