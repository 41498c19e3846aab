"""`docker-compose.yml`: what a platform engineer relies on, read off the file. Its commands run in the file beside."""

import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.jobs.store import QUEUES
from pipeline.settings import Settings
from tests.support.compose import (
    EXAMPLE,
    ROOT,
    Service,
    all_variables,
    duration_s,
    raw_file,
    raw_services,
    read_env_file,
    required_variables,
    services,
    size_bytes,
)

STORES = {"redis-broker", "redis-cache", "postgres", "qdrant"}
FOREFILL = {"migrate", "api", "worker", "worker-bulk", "dispatcher", "beat", "flower"}
PORTS = {"redis-broker": 6379, "redis-cache": 6379, "postgres": 5432, "qdrant": 6333}
FIXED = {
    "database_url",
    "broker_url",
    "cache_url",
    "qdrant_url",
    "qdrant_api_key",
    "entry_hmac_key",
    "api_host",
    "api_port",
    "snapshot_path",
    "soft_shutdown_s",
    "worker_concurrency",
}
"""Settings that the file decides itself."""
ELSEWHERE = {"qdrant_data_dir", "worker_metrics_port"}
"""Settings of the embedded engine, and of a port on a container's own loopback, where nobody reaches it."""


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """What `.env` says after `deploy/make-env.sh`."""
    example = read_env_file(EXAMPLE)
    return {name: value or f"secret{number:02}" for number, (name, value) in enumerate(example.items())}


@pytest.fixture(scope="module")
def started(variables: dict[str, str]) -> dict[str, Service]:
    """The services as they are started with that file."""
    return services(variables)


def test_it_has_every_process_and_every_store(started: dict[str, Service]) -> None:
    assert set(started) == STORES | FOREFILL


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    example = read_env_file(EXAMPLE)
    assert {name for name, value in example.items() if not value} == required_variables()
    assert set(example) <= all_variables()
    assert {name for name in all_variables() - set(example) if not name.startswith("FOREFILL_")} == set()


@pytest.mark.parametrize("missing", sorted(required_variables()))
def test_a_missing_secret_is_refused(variables: dict[str, str], missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        services({**variables, missing: ""})


def test_no_secret_stands_in_the_file() -> None:
    for name, settings in raw_services().items():
        for variable, value in settings.get("environment", {}).items():
            secret = any(word in variable for word in ("PASSWORD", "KEY", "LOGIN", "AUTH")) or "://:" in str(value)
            if secret and value is not None:
                assert ":?" in str(value), f"{name}: {variable}"


def test_secrets_are_never_arguments(started: dict[str, Service], variables: dict[str, str]) -> None:
    secrets = [variables[name] for name in required_variables()]
    for service in started.values():
        words = [*service.command, *service.health_check]
        assert not [secret for secret in secrets if any(secret in word for word in words)], service.name


def test_every_variable_of_forefill_is_a_setting_with_a_valid_value(started: dict[str, Service]) -> None:
    for name in FOREFILL:
        given = _settings_of(started[name])
        assert set(given) <= set(Settings.model_fields), name
        Settings.model_validate(given)


def test_every_setting_can_be_set() -> None:
    handed_on = {
        variable.removeprefix("FOREFILL_").lower()
        for name in FOREFILL
        for variable, value in raw_services()[name]["environment"].items()
        if value is None
    }
    missing = set(Settings.model_fields) - handed_on - FIXED - ELSEWHERE
    assert not missing, f"add them to x-settings of docker-compose.yml: {sorted(missing)}"


def test_every_url_leads_to_a_service_that_is_on_the_same_network_and_is_waited_for(
    started: dict[str, Service],
) -> None:
    for name in FOREFILL:
        for variable, value in started[name].environment.items():
            if variable.endswith("_URL"):
                url = urlsplit(value)
                assert url.hostname is not None, f"{name}: {variable}"
                assert PORTS[url.hostname] == url.port, f"{name}: {variable}"
                assert set(started[name].settings["networks"]) & set(started[url.hostname].settings["networks"])
                assert url.hostname in _waits_for(started, name), f"{name} does not wait for {url.hostname}"


def test_broker_and_cache_are_two_servers_with_policies_of_their_own(started: dict[str, Service]) -> None:
    broker, cache = _server_settings(started["redis-broker"]), _server_settings(started["redis-cache"])
    assert broker["maxmemory-policy"] == "noeviction"
    assert broker["maxmemory"] == "256mb"
    assert cache["maxmemory-policy"] == "allkeys-lru"
    for server in (broker, cache):
        assert server["appendonly"] == "yes"
        assert server["appendfsync"] == "everysec"
        assert server["save"] == '""'
    urls = {started["worker"].environment[f"FOREFILL_{name}_URL"] for name in ("BROKER", "CACHE")}
    assert len({urlsplit(url).hostname for url in urls}) == 2


def test_containers_have_room_for_what_their_servers_may_use(started: dict[str, Service]) -> None:
    for name in ("redis-broker", "redis-cache"):
        limit = size_bytes(started[name].settings["deploy"]["resources"]["limits"]["memory"])
        assert limit >= 1.5 * size_bytes(_server_settings(started[name])["maxmemory"]), name


def test_every_queue_has_a_worker_and_a_nightly_run_cannot_hold_up_an_update(started: dict[str, Service]) -> None:
    queues = {name: _option(started[name], "--queues").split(",") for name in ("worker", "worker-bulk")}
    assert sorted(queues["worker"] + queues["worker-bulk"]) == sorted(QUEUES)
    assert queues["worker"] == ["interactive"]


def test_workers_have_longer_to_stop_than_they_take(started: dict[str, Service]) -> None:
    for name in ("worker", "worker-bulk"):
        worker = started[name]
        assert worker.environment["REMAP_SIGTERM"] == "SIGQUIT"
        assert worker.stop_grace_s > float(worker.environment["FOREFILL_SOFT_SHUTDOWN_S"]) + 10


@pytest.mark.parametrize("name", sorted(STORES | FOREFILL))
def test_a_container_can_do_nothing_that_it_need_not(started: dict[str, Service], name: str) -> None:
    settings = started[name].settings
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert "unprivileged" in settings["image"] or str(settings["user"]).partition(":")[0] not in ("root", "0")
    assert settings["deploy"]["resources"]["limits"]["memory"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(settings)


@pytest.mark.parametrize("name", sorted(STORES | FOREFILL))
def test_a_container_is_watched_restarted_and_its_log_is_bounded(started: dict[str, Service], name: str) -> None:
    settings = started[name].settings
    assert settings["logging"]["options"].keys() == {"max-size", "max-file"}
    if name == "migrate":
        assert settings["restart"] == "no"
        return
    assert settings["restart"] == "unless-stopped"
    assert started[name].health_check
    assert duration_s(settings["healthcheck"]["timeout"]) < duration_s(settings["healthcheck"]["interval"])


def test_only_the_api_is_published_and_on_loopback(started: dict[str, Service]) -> None:
    published = {name: service.settings["ports"] for name, service in started.items() if "ports" in service.settings}
    assert published == {"api": ["127.0.0.1:8080:8080"]}
    internal = {name for name, network in raw_file()["networks"].items() if network.get("internal")}
    for name in (STORES | FOREFILL) - {"api"}:
        assert set(started[name].settings["networks"]) <= internal, name


def test_flower_asks_for_a_login_and_knows_the_broker_only(started: dict[str, Service]) -> None:
    flower = started["flower"]
    assert "--auth-file" in flower.command[-1]
    assert {name for name in flower.environment if name.endswith(("_URL", "_KEY"))} == {"FOREFILL_BROKER_URL"}


def test_what_must_stay_is_on_a_named_volume(started: dict[str, Service]) -> None:
    mounts = {name: service.settings.get("volumes", []) for name, service in started.items()}
    assert mounts["postgres"] == ["postgres-data:/var/lib/postgresql"]
    assert mounts["redis-broker"] == ["redis-broker-data:/data"]
    assert mounts["redis-cache"] == ["redis-cache-data:/data"]
    assert mounts["qdrant"] == ["qdrant-data:/qdrant/storage"]
    used = {mount.partition(":")[0] for mounted in mounts.values() for mount in mounted}
    assert used == set(raw_file()["volumes"])


def test_images_are_pinned_to_a_version(started: dict[str, Service]) -> None:
    for name in STORES:
        _, _, tag = started[name].settings["image"].partition(":")
        assert tag[:1].isdigit() or tag.startswith("v1."), name
        assert "." in tag, name


def test_make_env_writes_a_private_file_with_fresh_secrets_and_never_replaces_one(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in (".env.example", "deploy/make-env.sh"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    script = ["sh", str(tmp_path / "deploy/make-env.sh")]
    first = subprocess.run(script, capture_output=True, text=True, check=True, cwd="/")
    made = read_env_file(tmp_path / ".env")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    secrets = [made[name] for name in required_variables()]
    assert len(set(secrets)) == len(secrets)
    assert all(len(secret) == 48 and secret.isalnum() for secret in secrets)
    assert not [secret for secret in secrets if secret in first.stdout + first.stderr]
    assert services(made)
    second = subprocess.run(script, capture_output=True, text=True, check=False, cwd="/")
    assert second.returncode == 1
    assert "already" in second.stderr
    assert read_env_file(tmp_path / ".env") == made
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", ".env.example", "deploy"]


def _settings_of(service: Service) -> dict[str, str]:
    return {
        name.removeprefix("FOREFILL_").lower(): value
        for name, value in service.environment.items()
        if name.startswith("FOREFILL_")
    }


def _waits_for(started: dict[str, Service], name: str) -> set[str]:
    direct = started[name].settings.get("depends_on", {})
    return set(direct).union(*(_waits_for(started, other) for other in direct))


def _server_settings(server: Service) -> dict[str, str]:
    lines = [line.strip() for line in server.command[-1].splitlines()[1:-1]]
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def _option(service: Service, name: str) -> str:
    return service.command[service.command.index(name) + 1]
