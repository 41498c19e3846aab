"""Connections that lookups keep open: to a server that follows a script, and to a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import hiredis
import pytest
import redis.asyncio

from pipeline.errors import Unavailable
from pipeline.token_cache import MissReason, RedisTokenReader, RedisTokenWriter, redis_connections
from tests.support.entries import FINGERPRINT, keys_of, numbered_pairs
from tests.support.polling import eventually_async
from tests.support.ports import LOOPBACK
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.25
SLACK_S = 1.0
PATIENT_S = 2.0
"""A time-out that a busy machine does not reach by itself."""
PAIRS = numbered_pairs(2)
KEYS = keys_of(PAIRS)
ENTRIES = [entry for _, entry in PAIRS]
ABSENT = [MissReason.ABSENT]
ANSWER, FOREIGN = b"*1\r\n$-1\r\n", b"*1\r\n$1\r\nx\r\n"
ERROR, PUSH, GIBBERISH = b"-LOADING the data\r\n", b">2\r\n+invalidate\r\n*0\r\n", b"?\r\n"
CLOSE, HANG = b"close", b"hang"


class ScriptedServer:
    """Answers each MGET with the script's next line, and whatever else with OK."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.asked = 0
        """MGETs so far."""
        self.accepted = 0
        """Connections so far."""
        self.open = 0
        """Connections that nobody has closed."""
        self.is_mute = False
        """Whether it accepts and says nothing."""
        self.is_slow = False
        """Whether it says everything a byte at a time."""
        self.afterthought = b""
        """What it says a moment after each answer to an MGET."""
        self.url = ""
        """Of protocol 2, whose handshake is nothing but OK."""

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._talk, LOOPBACK, 0)
        self.url = f"redis://{LOOPBACK}:{server.sockets[0].getsockname()[1]}?protocol=2"
        return server

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted, self.open = self.accepted + 1, self.open + 1
        commands = hiredis.Reader()
        try:
            while received := await reader.read(1 << 16):
                commands.feed(received)
                while command := commands.gets():
                    reply = self._reply(command[0])
                    if reply == CLOSE:
                        return
                    await self._say(writer, reply)
                    if self.afterthought and command[0] == b"MGET":
                        await asyncio.sleep(0.01)
                        await self._say(writer, self.afterthought)
        except ConnectionResetError:
            pass  # closed with something unread, as it should be
        finally:
            self.open -= 1
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        for part in [bytes([byte]) for byte in reply] if self.is_slow else [reply]:
            writer.write(part)
            await asyncio.sleep(0.001 if self.is_slow else 0)

    def _reply(self, name: bytes) -> bytes:
        if self.is_mute:
            return b""
        if name != b"MGET":
            return b"+OK\r\n"
        self.asked += 1
        line = self.script.pop(0)
        return b"" if line == HANG else line


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    made = ScriptedServer()
    server = await made.serve()
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture
async def reader(scripted: ScriptedServer) -> AsyncIterator[RedisTokenReader]:
    made = RedisTokenReader.connect(scripted.url, timeout_s=TIMEOUT_S, max_connections=1)
    yield made
    await made.close()
    await until(lambda: scripted.open == 0)


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually_async(holds)


async def test_lookups_one_after_another_share_one_connection(
    scripted: ScriptedServer, reader: RedisTokenReader
) -> None:
    scripted.script = [ANSWER] * 5
    assert [await reader.read(FINGERPRINT, KEYS[:1]) for _ in range(5)] == [ABSENT] * 5
    assert (scripted.asked, scripted.accepted) == (5, 1)


async def test_a_kept_connection_that_dies_while_asked_is_replaced_and_asked_again(
    scripted: ScriptedServer, reader: RedisTokenReader
) -> None:
    scripted.script = [ANSWER, CLOSE, ANSWER]
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert (scripted.asked, scripted.accepted) == (3, 2)


async def test_a_lookup_is_sent_twice_at_most(scripted: ScriptedServer, reader: RedisTokenReader) -> None:
    scripted.script = [ANSWER, CLOSE, CLOSE, ANSWER]
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    with pytest.raises(Unavailable):
        await reader.read(FINGERPRINT, KEYS[:1])
    assert scripted.asked == 3


async def test_a_new_connection_that_dies_is_a_failed_lookup(
    scripted: ScriptedServer, reader: RedisTokenReader
) -> None:
    scripted.script = [CLOSE, ANSWER]
    with pytest.raises(Unavailable):
        await reader.read(FINGERPRINT, KEYS[:1])
    assert scripted.asked == 1


async def test_a_reply_that_comes_in_pieces_is_one_reply(scripted: ScriptedServer, reader: RedisTokenReader) -> None:
    scripted.script, scripted.is_slow = [ANSWER] * 2, True
    assert [await reader.read(FINGERPRINT, KEYS[:1]) for _ in range(2)] == [ABSENT] * 2
    assert scripted.accepted == 1


OTHER_REPLIES = {
    "an error": ERROR,
    "no protocol": GIBBERISH,
    "a push": PUSH + ANSWER,
    "a number": b":7\r\n",
    "a string": b"+OK\r\n",
    "a value": b"$2\r\nab\r\n",
    "a longer list": b"*2\r\n$-1\r\n$-1\r\n",
    "no list": b"*0\r\n",
    "a list of numbers": b"*1\r\n:1\r\n",
    "a list of a list of a billion": b"*1\r\n*1000000000\r\n",
    "a value of no length": b"*1\r\n$x\r\n",
    "a giant value": b"*1\r\n$%d\r\n" % 2**20 + bytes(2**20),
}


@pytest.mark.parametrize("reply", OTHER_REPLIES.values(), ids=OTHER_REPLIES.keys())
async def test_any_other_reply_is_a_failed_lookup_and_costs_its_connection(
    scripted: ScriptedServer, reader: RedisTokenReader, reply: bytes
) -> None:
    scripted.script = [reply, ANSWER]
    with pytest.raises(Unavailable):
        await reader.read(FINGERPRINT, KEYS[:1])
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert (scripted.asked, scripted.accepted) == (2, 2)


@pytest.mark.parametrize("said", [FOREIGN, FOREIGN[:3], PUSH], ids=["a reply", "a part of one", "a push"])
async def test_what_is_said_while_nobody_asks_reaches_no_caller(
    scripted: ScriptedServer, reader: RedisTokenReader, said: bytes
) -> None:
    scripted.script, scripted.afterthought = [ANSWER] * 2, said
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    await until(lambda: scripted.open == 0)
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert (scripted.asked, scripted.accepted) == (2, 2)


async def test_a_client_that_keeps_its_stream_elsewhere_is_a_failed_lookup(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version of redis-py: the cache is down then, but nothing that is answered."""
    reader = RedisTokenReader.connect(scripted.url, timeout_s=TIMEOUT_S)
    monkeypatch.setattr(redis_connections, "_STREAM", "_elsewhere")
    with pytest.raises(Unavailable, match="elsewhere"):
        await reader.read(FINGERPRINT, KEYS[:1])
    await until(lambda: scripted.accepted == 1 and scripted.open == 0)
    await reader.close()


async def test_what_nobody_asked_for_reaches_no_caller(scripted: ScriptedServer, reader: RedisTokenReader) -> None:
    scripted.script = [ANSWER + FOREIGN, ANSWER]
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert (scripted.asked, scripted.accepted) == (2, 2)


@pytest.mark.parametrize("hangs", ["at the handshake", "at the lookup"])
async def test_a_server_that_accepts_and_hangs_costs_the_time_out_and_its_connection(
    scripted: ScriptedServer, reader: RedisTokenReader, hangs: str
) -> None:
    scripted.script, scripted.is_mute = [HANG], hangs == "at the handshake"
    began = time.monotonic()
    with pytest.raises(Unavailable, match="in time"):
        await reader.read(FINGERPRINT, KEYS[:1])
    assert TIMEOUT_S * 0.9 <= time.monotonic() - began < TIMEOUT_S + SLACK_S
    scripted.script, scripted.is_mute = [ANSWER], False
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    assert scripted.accepted == 2


async def test_a_kept_connection_that_hangs_is_not_asked_again(
    scripted: ScriptedServer, reader: RedisTokenReader
) -> None:
    scripted.script = [ANSWER, HANG, ANSWER]
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ABSENT
    with pytest.raises(Unavailable, match="in time"):
        await reader.read(FINGERPRINT, KEYS[:1])
    assert scripted.asked == 2


async def test_a_cancelled_lookup_closes_its_connection_and_gives_up_its_place(scripted: ScriptedServer) -> None:
    reader = RedisTokenReader.connect(scripted.url, timeout_s=30, max_connections=1)
    scripted.script = [HANG, ANSWER]
    cancelled, waiting = (asyncio.create_task(reader.read(FINGERPRINT, KEYS[:1])) for _ in range(2))
    await until(lambda: scripted.asked == 1)
    cancelled.cancel()
    assert await waiting == ABSENT
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (scripted.asked, scripted.accepted) == (2, 2)
    await until(lambda: scripted.open == 1)
    await reader.close()


async def test_more_callers_than_connections_wait_within_the_time_out(scripted: ScriptedServer) -> None:
    reader = RedisTokenReader.connect(scripted.url, timeout_s=PATIENT_S, max_connections=1)
    scripted.script = [HANG, ANSWER]
    began = time.monotonic()
    results = await asyncio.gather(*(reader.read(FINGERPRINT, KEYS[:1]) for _ in range(20)), return_exceptions=True)
    assert time.monotonic() - began < PATIENT_S + SLACK_S
    assert {type(result) for result in results} <= {Unavailable, list}
    assert scripted.accepted <= 2
    await reader.close()


async def test_a_reply_that_comes_after_the_close_closes_its_connection(scripted: ScriptedServer) -> None:
    reader = RedisTokenReader.connect(scripted.url, timeout_s=30)
    scripted.script = [ANSWER, ANSWER]
    asked = asyncio.create_task(reader.read(FINGERPRINT, KEYS[:1]))
    await until(lambda: scripted.accepted == 1)
    await reader.close()
    await reader.close()
    assert await asked == ABSENT
    await until(lambda: scripted.open == 0)


async def test_a_cache_restarted_between_two_lookups_is_no_miss(cache_server: ValkeyServer) -> None:
    writer, reader = RedisTokenWriter.connect(cache_server.url), RedisTokenReader.connect(cache_server.url)
    writer.write(FINGERPRINT, PAIRS)
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    cache_server.kill()  # the loop stands still: the reader learns of it when it asks
    cache_server.start()
    RedisTokenWriter.connect(cache_server.url).write(FINGERPRINT, PAIRS)
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    await reader.close()
    writer.close()


async def test_lookups_use_a_callers_user_and_database_and_leave_its_connections_alone(
    cache_server: ValkeyServer,
) -> None:
    with cache_server.client() as admin:
        admin.acl_setuser("query", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        other_database = f"redis://query:secret@{LOOPBACK}:{cache_server.port}/3"
        writer = RedisTokenWriter.connect(other_database)
        writer.write(FINGERPRINT, PAIRS)
        writer.close()
        client = redis.asyncio.Redis.from_url(other_database, decode_responses=True)
        reader = RedisTokenReader(client, timeout_s=10)
        assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
        (connection,) = [each for each in admin.client_list() if each["user"] == "query"]
        assert connection["db"] == "3"
        assert await client.dbsize() == 2
        await reader.close()
        assert await client.dbsize() == 2
        await client.aclose()
        admin.acl_deluser("query")


async def test_lookups_go_over_a_unix_socket(cache_server: ValkeyServer) -> None:
    writer, reader = (
        RedisTokenWriter.connect(cache_server.socket_url),
        RedisTokenReader.connect(cache_server.socket_url),
    )
    writer.write(FINGERPRINT, PAIRS)
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    await reader.close()
    writer.close()
