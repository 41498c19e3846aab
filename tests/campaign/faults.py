"""The faults: each is injected, held for some seconds and healed, one way through, whatever ends it."""

import math
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

import psutil
import psycopg
import redis
from psycopg import sql

from tests.campaign.stack import LEASE_S, CampaignStack
from tests.support.polling import eventually

Injection: TypeAlias = AbstractContextManager[str]
"""Injects on entering and heals on leaving; gives what was done, for the log."""

_OTHER_CHANCE = 0.3
"""How often a second fault comes beside the first."""

_HEAL_S = 60.0
_BURNERS = 8
_BURN = "while True: pass"
_PROCESSES = ("workers-interactive", "workers-bulk", "api", "dispatcher", "beat", "flower", "broker", "cache", "qdrant")
_STORES = ("broker", "cache", "qdrant")
_WORKERS = ("workers-interactive", "workers-bulk")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    kind: str
    inject: Callable[[CampaignStack, random.Random], Injection]
    hold_s: tuple[float, float]
    """Between these it is drawn how long it lasts."""
    weight: int = 2
    """How often it is drawn, beside the others'."""
    touches: Literal["", "store", "database"] = ""
    """Two faults that touch the same are not injected together: one could not be healed."""
    is_last: bool = False
    """Healed when everything else is: what it starts needs all of it."""
    needs_disk: bool = False
    """Only where the data has a small disk of its own."""


@contextmanager
def kill_process(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """SIGKILL one process of the stack."""
    role = draw.choice(_PROCESSES)
    victim = stack.find(role)
    if victim is not None:
        stack.touch(victim)
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    yield role


@contextmanager
def kill_child(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """SIGKILL one prefork child of a worker."""
    role = draw.choice(_WORKERS)
    worker = stack.find(role)
    with suppress(psutil.NoSuchProcess, IndexError):
        child = draw.choice(sorted(worker.children(), key=lambda found: found.pid) if worker is not None else [])
        child.kill()
    yield role


@contextmanager
def kill_everything(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """SIGKILL `up`, with which the kernel ends everything; it is started again on the same folder."""
    stack.planned.set()
    try:
        if stack.up is not None:
            stack.up.kill_all()
        yield "up"
    finally:
        stack.ensure_up()
        stack.planned.clear()


@contextmanager
def stop_process(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """SIGSTOP a worker with its children, one child, the API or the dispatcher, for longer than a lease."""
    role = draw.choice((*_WORKERS, *_WORKERS, "child", "api", "dispatcher"))
    found = stack.find(draw.choice(_WORKERS) if role == "child" else role)
    with _stopped(stack, _family(found, only_child=role == "child", draw=draw)):
        yield role


@contextmanager
def silence_store(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """SIGSTOP a store: it takes connections and answers nothing."""
    role = draw.choice(_STORES)
    with _stopped(stack, _family(stack.find(role))):
        yield role


@contextmanager
def suspend(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """SIGSTOP everything, as a host does that is suspended, for longer than a lease; it wakes beside CPU burners."""
    up = psutil.Process(stack.up.pid) if stack.up is not None and stack.up.is_running else None
    with burn(stack, _draw), _stopped(stack, _family(up), is_touched=False):
        yield "everything"


@contextmanager
def burn(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """Start eight processes that want a whole core each."""
    burners = [stack.processes.start([sys.executable, "-S", "-c", _BURN], name="burner") for _ in range(_BURNERS)]
    try:
        yield f"{_BURNERS} processes"
    finally:
        for burner in burners:
            burner.kill()


@contextmanager
def flush(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """FLUSHALL on the cache or on the broker."""
    role = draw.choice(("cache", "broker"))
    with closing(stack.cache() if role == "cache" else stack.broker()) as client, suppress(redis.RedisError):
        client.flushall()
    yield role


@contextmanager
def refuse_writes(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """Have cache or broker refuse every write, as they do when their disk is full; they go on reading."""
    role = draw.choice(("cache", "broker"))

    def refuse(replicas: int) -> bool:
        with closing(stack.cache() if role == "cache" else stack.broker()) as client:
            return bool(client.config_set("min-replicas-to-write", replicas))

    with suppress(redis.RedisError):  # it is being restarted
        refuse(1)
    try:
        yield role
    finally:
        eventually(lambda: refuse(0), timeout_s=_HEAL_S, describe=f"the {role}", tolerate=(redis.RedisError,))


@contextmanager
def fill_disk(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """Fill the disk of the data folder to the last byte, or almost."""
    ballast = stack.disk / "ballast"
    spare = draw.choice((0, 0, 64, 1024)) * 1024
    stack.disk_full_at = math.inf
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            free = os.statvfs(stack.disk).f_bavail * os.statvfs(stack.disk).f_frsize
            os.posix_fallocate(file.fileno(), 0, max(4096, free - spare))
        yield f"{spare >> 10} KiB left"
    finally:
        ballast.unlink(missing_ok=True)
        stack.disk_full_at = time.monotonic()


@contextmanager
def lock_sqlite(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """Take SQLite's one lock for writers and keep it."""
    how = draw.choice(("IMMEDIATE", "EXCLUSIVE"))
    with closing(sqlite3.connect(stack.sqlite_file, isolation_level=None, timeout=5)) as connection:
        with suppress(sqlite3.OperationalError):  # the database may be full, or in the middle of another fault
            connection.execute(f"BEGIN {how}")
        yield how  # closing the connection gives the lock back


@contextmanager
def end_sessions(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """`pg_terminate_backend` for every session of the database."""
    with _administering(stack) as connection:
        yield f"{_end_sessions(connection, stack)} sessions"


@contextmanager
def lock_tables(stack: CampaignStack, draw: random.Random) -> Iterator[str]:
    """Lock a table, while statements may take half a second, or wait for a lock a fifth of one."""
    table = draw.choice(("ledger", "documents", "jobs", "manifests", "run_items", "point_intents"))
    limit = draw.choice(("statement_timeout", "lock_timeout"))
    value = {"statement_timeout": "500ms", "lock_timeout": "200ms"}[limit]
    with _setting(stack, limit, value), closing(psycopg.connect(_dsn(stack, stack.database_name))) as locking:
        locking.execute("SET statement_timeout = 0")
        locking.execute("SET lock_timeout = '5s'")
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            locking.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        yield f"{table}, {limit} {value}"  # closing the connection gives the lock back


@contextmanager
def idle_timeout(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """End sessions that are idle in a transaction for 50 ms."""
    with _setting(stack, "idle_in_transaction_session_timeout", "50ms"):
        yield "50 ms"


@contextmanager
def read_only(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """Make every session read-only, as a demoted primary's are."""
    with _setting(stack, "default_transaction_read_only", "on"):
        yield "the database"


@contextmanager
def silent_link(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """Let nothing through between every process and PostgreSQL; connections stay open."""
    assert stack.link is not None
    stack.link.silence()
    try:
        yield "PostgreSQL"
    finally:
        stack.link.speak()


@contextmanager
def broken_link(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """Break every connection to PostgreSQL."""
    assert stack.link is not None
    stack.link.cut()
    yield "PostgreSQL"


@contextmanager
def kill_postgres(stack: CampaignStack, _draw: random.Random) -> Iterator[str]:
    """SIGKILL PostgreSQL; it recovers."""
    assert stack.postgres is not None
    stack.postgres.kill()
    try:
        yield "PostgreSQL"
    finally:
        stack.postgres.start()


FAULTS = (
    Fault("SIGKILL of a process", kill_process, (0, 4), weight=6),
    Fault("SIGKILL of a worker's child", kill_child, (0, 2)),
    Fault("SIGKILL of everything", kill_everything, (0, 2), weight=1, is_last=True),
    Fault("SIGSTOP beyond the lease", stop_process, (LEASE_S + 2, LEASE_S + 12), weight=4),
    Fault("silent store", silence_store, (2, 15), weight=4, touches="store"),
    Fault("store refuses writes", refuse_writes, (2, 10), touches="store"),
    Fault("suspended host", suspend, (LEASE_S + 2, LEASE_S + 12), weight=1, touches="store"),
    Fault("CPU burners", burn, (8, 20), weight=3),
    Fault("FLUSHALL", flush, (0, 3), weight=3, touches="store"),
    Fault("full disk", fill_disk, (4, 12), weight=3, needs_disk=True),
)
"""On both databases."""

_SQLITE = (Fault("SQLite locked", lock_sqlite, (3, 12), weight=6, touches="database"),)
_POSTGRESQL = (
    Fault("pg_terminate_backend", end_sessions, (0, 2), weight=3, touches="database"),
    Fault("lock with a time limit", lock_tables, (3, 10), weight=4, touches="database"),
    Fault("idle in transaction", idle_timeout, (3, 10), touches="database"),
    Fault("read-only server", read_only, (3, 10), touches="database"),
    Fault("silent link", silent_link, (2, 15), weight=3, touches="database"),
    Fault("broken link", broken_link, (0, 2), touches="database"),
    Fault("SIGKILL of PostgreSQL", kill_postgres, (0, 4), weight=1, touches="database"),
)


def possible_faults(stack: CampaignStack) -> list[Fault]:
    """Return the faults that can be injected here."""
    also = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}[stack.kind]
    return [fault for fault in (*FAULTS, *also) if stack.disk_is_ours or not fault.needs_disk]


def fault_kinds() -> list[str]:
    """Return the names of all kinds."""
    return [fault.kind for fault in (*FAULTS, *_SQLITE, *_POSTGRESQL)]


def draw_faults(known: Sequence[Fault], draw: random.Random) -> list[Fault]:
    """Return one fault, or two that go together, as they are to be injected; they are healed the other way round."""
    weights = [fault.weight for fault in known]
    first, second = draw.choices(known, weights, k=2)
    goes_along = first is not second and (not first.touches or first.touches != second.touches)
    chosen = [first, second] if draw.random() < _OTHER_CHANCE and goes_along else [first]
    return sorted(chosen, key=lambda fault: not fault.is_last)


def _family(
    process: psutil.Process | None, *, only_child: bool = False, draw: random.Random | None = None
) -> list[psutil.Process]:
    """A process and its descendants, or one of its children."""
    if process is None:
        return []
    try:
        children = sorted(process.children(recursive=True), key=lambda found: found.pid)
    except psutil.NoSuchProcess:
        return []
    if only_child and draw is not None:
        return [draw.choice(children)] if children else []
    return [process, *children]


@contextmanager
def _stopped(stack: CampaignStack, family: list[psutil.Process], *, is_touched: bool = True) -> Iterator[None]:
    with ExitStack() as healing:
        for process in family:
            if is_touched:
                stack.touch(process)
            healing.callback(_send, process, signal.SIGCONT)
            _send(process, signal.SIGSTOP)
        yield


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _dsn(stack: CampaignStack, database: str) -> str:
    assert stack.postgres is not None
    return stack.postgres.url(database).replace("+psycopg", "")


@contextmanager
def _administering(stack: CampaignStack) -> "Iterator[psycopg.Connection]":
    """A connection to another database of the server, which no fault touches."""
    with psycopg.connect(_dsn(stack, "postgres"), autocommit=True) as connection:
        yield connection


@contextmanager
def _setting(stack: CampaignStack, name: str, value: str) -> Iterator[None]:
    """Give the database's sessions a setting: those that are there are ended, so that they come back with it."""
    named = (sql.Identifier(stack.database_name), sql.Identifier(name))
    with _administering(stack) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(*named, sql.Literal(value)))
        _end_sessions(connection, stack)
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} RESET {}").format(*named))
            _end_sessions(connection, stack)


def _end_sessions(connection: "psycopg.Connection", stack: CampaignStack) -> int:
    found = connection.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", [stack.database_name]
    ).fetchone()
    return int(found[0]) if found is not None else 0
