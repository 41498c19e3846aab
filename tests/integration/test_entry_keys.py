"""Processes with another entry key, and servers that refuse writes: `doctor` and `status` name them."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import ResponseError

from pipeline.database import Database
from pipeline.jobs.tables import InstallationRow
from pipeline.services.diagnosis import Finding, Level, entries, redis_servers
from pipeline.services.diagnosis.redis_writes import WriteProbe, reason_of
from pipeline.services.key_mismatches import forget_key_mismatches, list_key_mismatches, reporting_to
from pipeline.services.overview import take_overview
from pipeline.settings import Settings
from pipeline.token_cache import KeyMismatchError, MemoryStore, MemoryTokenWriter
from pipeline.token_cache.redis_cache import RedisTokenWriter
from tests.support.entries import FINGERPRINT, numbered_pairs
from tests.support.polling import eventually
from tests.support.valkey import ValkeyServer
from tests.support.write_path import change_rows

PAIRS = numbered_pairs(5)
FACTS = InstallationRow.metadata.tables["installation"]


def settings_of(server: ValkeyServer, *, key: str | None = "secret") -> Settings:
    return Settings.model_validate({"cache_url": server.url, "broker_url": server.url, "entry_hmac_key": key})


@pytest.fixture
def signing(cache_server: ValkeyServer) -> Iterator[RedisTokenWriter]:
    """A cache whose entries are signed."""
    writer = RedisTokenWriter.connect(cache_server.url, hmac_key=b"secret")
    writer.set_epoch("e1")
    writer.write(FINGERPRINT, PAIRS)
    yield writer
    writer.close()


def failures(found: Iterator[Finding]) -> list[str]:
    return [finding.message for finding in found if finding.level is Level.FAIL]


@pytest.mark.usefixtures("signing")
def test_doctor_is_content_with_the_key_that_signed_the_entries(database: Database, cache_server: ValkeyServer) -> None:
    (finding,) = entries.check(settings_of(cache_server), database)
    assert (finding.level, "5 sampled entries are sound" in finding.message) == (Level.OK, True)


@pytest.mark.usefixtures("signing")
def test_doctor_names_a_process_without_the_key_and_its_own_wrong_one(
    database: Database, cache_server: ValkeyServer
) -> None:
    with closing(RedisTokenWriter.connect(cache_server.url, report=reporting_to(database))) as stranger:
        for _ in range(2):
            with pytest.raises(KeyMismatchError):
                stranger.write(FINGERPRINT, PAIRS)

    def noted() -> bool:
        with database.read() as connection:
            return len(list_key_mismatches(connection)) == 1

    eventually(noted, describe="a note in SQL")
    (message,) = failures(entries.check(settings_of(cache_server), database))
    assert "was refused: the cache's entries are signed, and this process has no" in message
    mine, _ = failures(entries.check(settings_of(cache_server, key="other"), database))
    assert "signed with another FOREFILL_ENTRY_HMAC_KEY" in mine
    assert forget_key_mismatches(database) == 0
    change_rows(database, FACTS, FACTS.c.key.startswith("key_mismatch:"), value='["it","why",1]')
    assert failures(entries.check(settings_of(cache_server), database)) == []
    assert forget_key_mismatches(database) == 1


def test_doctor_finds_entries_that_were_signed_otherwise_before(
    database: Database, cache_server: ValkeyServer, signing: RedisTokenWriter
) -> None:
    with cache_server.client() as server:
        server.delete("ff:epoch")
    with closing(RedisTokenWriter.connect(cache_server.url)) as stranger:
        stranger.write(FINGERPRINT, PAIRS[:2])
    signing.set_epoch("e1")
    (message,) = failures(entries.check(settings_of(cache_server), database))
    assert "2 of 5 sampled entries" in message


REFUSALS = {
    "maxmemory": ("1", "0", "it is full"),
    "min-replicas-to-write": ("1", "0", "fewer replicas than it wants"),
}


@pytest.mark.parametrize("option", REFUSALS)
def test_doctor_and_status_say_that_a_server_refuses_writes(
    database: Database, cache_server: ValkeyServer, option: str
) -> None:
    refusing, accepting, sentence = REFUSALS[option]
    settings = settings_of(cache_server)
    probes = {name: WriteProbe(cache_server.url, service=name) for name in ("broker", "cache")}
    cache = MemoryTokenWriter(MemoryStore())
    with cache_server.client() as server:
        assert take_overview(database, cache, probes).problems == {}
        server.config_set(option, refusing)
        try:
            found = failures(redis_servers.check(settings))
            problems = take_overview(database, cache, probes).problems
        finally:
            server.config_set(option, accepting)
    for service in ("broker", "cache"):
        assert any(f"{service} refuses writes: " in message and sentence in message for message in found)
        assert sentence in problems[service]
    assert not any("refuses" in message for message in failures(redis_servers.check(settings)))
    for probe in probes.values():
        probe.close()


def test_a_replica_refuses_and_a_dead_server_does_not_answer(cache_server: ValkeyServer) -> None:
    with closing(WriteProbe(cache_server.url, service="cache")) as probe, cache_server.client() as server:
        server.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            assert probe.problem() == "cache refuses writes: it is a read-only replica"
        finally:
            server.execute_command("REPLICAOF", "NO", "ONE")
        assert probe.problem() is None
        cache_server.kill()
        assert "cache does not answer" in (probe.problem() or "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            "MISCONF Errors writing to the AOF file",
            "it cannot write its data to disk (MISCONF)",
        ),
        ("WHATEVER something secret", "it answers WHATEVER"),
        ("", "it answers ResponseError"),
    ],
)
def test_a_servers_own_words_stay_in_the_log(answer: str, reason: str) -> None:
    assert reason_of(ResponseError(answer)) == reason
