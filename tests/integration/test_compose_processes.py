"""The commands and health checks of `docker-compose.yml`, run as processes in the order in which they depend."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from tests.support.compose import EXAMPLE, ROOT, read_env_file, required_variables, services
from tests.support.compose_host import ComposeHost
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes

SECRETS = {name: f"{name.lower().replace('_', '')}0f1e2d3c4b5a" for name in required_variables()}
QUICK = {"FOREFILL_DISPATCH_INTERVAL_S": "0.2"}
DEPLOY = ROOT / "deploy"
SERVERS = ("redis-broker", "redis-cache")
PROCESSES = ("api", "worker", "worker-bulk", "dispatcher", "beat", "flower")


@pytest.fixture
def host(tmp_path: Path, processes: Processes, postgres_server: PostgresServer) -> ComposeHost:
    """The stores, healthy, and the schema that `migrate` made."""
    variables = {**read_env_file(EXAMPLE), **SECRETS, **QUICK}
    made = ComposeHost(tmp_path, services=services(variables), processes=processes, postgres=postgres_server)
    for name in SERVERS:
        made.start(name)
    made.start_owner()
    for name in (*SERVERS, "postgres", "qdrant"):
        made.wait_until_healthy(name)
    migrate = made.start("migrate")
    assert migrate.wait() == 0, migrate.tail()
    return made


def test_the_services_of_the_file_ingest_answer_and_stop(host: ComposeHost) -> None:
    refused = host.start("api")
    for name in PROCESSES[1:]:
        host.start(name)
    assert refused.wait() == 1, "without a key the API must not listen beyond loopback"
    assert "forefill keys add" in refused.log()
    key = _add_key(host)
    host.start("api")
    for name in PROCESSES:
        host.wait_until_healthy(name)

    _check_servers(host)
    _check_flower(host)
    with httpx.Client(base_url=host.url("api"), headers={"Authorization": f"Bearer {key}"}, timeout=10) as client:
        assert client.get("/v1/corpora", headers={"Authorization": "Bearer wrong"}).status_code == 401
        _ingest(client, count=3)
        _ingest(client, count=100)  # by the bulk queue
        answer = _ok(client.post("/v1/retrieve", json={"corpus": "compose", "query": "What is document 2?"}))
    assert answer["metadata"]["cache_hit"]
    assert answer["token_ids"]

    doctor = host.run("api", "forefill", "doctor")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    _check_that_no_secret_shows(host, key, doctor.stdout)
    assert set(host.stop_all().values()) == {0}
    for name in ("api", "dispatcher", "flower"):
        _check_that_it_says_why(host.check_health(name))
    _check_that_it_says_why(host.run("worker", "python", "-P", str(DEPLOY / "presence.py"), "worker", "nobody"))
    _check_that_it_says_why(host.run("beat", "python", "-P", str(DEPLOY / "presence.py"), "beat"))


def _add_key(host: ComposeHost) -> str:
    added = host.run("api", "forefill", "keys", "add", "ops", "--scope", "query,ingest,admin")
    assert added.returncode == 0, added.stderr
    return added.stdout.strip()


def _ingest(client: httpx.Client, *, count: int) -> None:
    documents = [{"id": f"{count}-{number}", "text": f"The text of document {number}."} for number in range(count)]
    accepted = client.put("/v1/corpora/compose/documents", json={"documents": documents})
    assert accepted.status_code == 202, accepted.text
    url = f"/v1/runs/{accepted.json()['run_id']}"
    run = eventually(lambda: _ended(_ok(client.get(url))), timeout_s=30)
    assert run is not None
    assert run["state"] == "succeeded", run


def _ended(run: dict[str, Any]) -> dict[str, Any] | None:
    return None if run["finished_at"] is None else run


def _ok(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()
    return value


def _check_that_it_says_why(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 1, f"{done.args} cannot fail"
    assert len(done.stderr.splitlines()) == 1, done.stderr


def _check_servers(host: ComposeHost) -> None:
    for name, policy, size_mib in (("redis-broker", "noeviction", 256), ("redis-cache", "allkeys-lru", 1024)):
        secret = SECRETS[f"{name.upper().replace('-', '_')}_PASSWORD"]
        with redis.Redis(host=LOOPBACK, port=host.port(name), password=secret) as client:
            facts = client.info()
            assert facts["maxmemory_policy"] == policy
            assert facts["maxmemory"] == size_mib * 2**20
            assert facts["aof_enabled"] == 1
            for forbidden in ("FLUSHALL", "CONFIG GET *", "KEYS *", "SHUTDOWN", "ACL LIST"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*forbidden.split())
        with (
            redis.Redis(host=LOOPBACK, port=host.port(name)) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.get("x")


def _check_flower(host: ComposeHost) -> None:
    login = base64.b64encode(f"forefill:{SECRETS['FLOWER_PASSWORD']}".encode()).decode()
    url = f"{host.url('flower')}/workers"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Basic {login}"}).status_code == 200


def _check_that_no_secret_shows(host: ComposeHost, key: str, printed: str) -> None:
    secrets = [*SECRETS.values(), key]
    processes = [psutil.Process(process.pid) for process in host.running.values() if process.is_running]
    everyone = [*processes, *(child for process in processes for child in process.children(recursive=True))]
    arguments = [" ".join(process.cmdline()) for process in everyone]
    logs = [process.output() + process.log() for process in host.running.values()]
    for text in (*arguments, *logs, printed):
        assert not [secret for secret in secrets if secret in text], text[:2000]
        assert "NOPERM" not in text
        assert "no permissions" not in text
