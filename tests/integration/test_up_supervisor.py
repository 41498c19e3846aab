"""The supervisor, on small processes of its own: crashes, silence, wedges, ends."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from pipeline.cli.stack.child import Child, Service
from pipeline.cli.stack.supervisor import Supervisor
from pipeline.errors import ConfigurationError, Unavailable
from tests.support.polling import eventually
from tests.support.processes import has_ended, pause

SLEEPS = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)"]
STUBBORN = [
    *(sys.executable, "-S", "-E", "-c"),
    "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.fork(); print('up', flush=True); time.sleep(60)",
]
LEAVES_A_TIME = [
    *(sys.executable, "-S", "-E", "-c"),
    """import signal, time
signal.signal(15, lambda *_: print(time.monotonic(), flush=True))
print("up", flush=True)
signal.pause()""",
]


@dataclass
class World:
    """A supervisor in a thread of its own, as children are tied to the thread that starts them."""

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def child(
        self,
        name: str,
        command: list[str],
        *,
        works: Callable[[Child], bool] = lambda _child: True,
        wedged: Callable[[Child], bool] = lambda _child: False,
        is_store: bool = False,
    ) -> Child:
        service = Service(name, command, works, wedged=wedged, is_store=is_store)
        return Child(service, os.environ, self.folder / f"{name}.log")

    def require_left_alone(self, child: Child, *, once: threading.Event) -> None:
        """Fail if a child is replaced, or spoken of, within one and a half seconds after something has happened."""
        self.await_word("ready")
        first = child.pid
        assert once.wait(timeout=10)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 1.5)
        assert child.pid == first
        assert self.said == ["ready"]

    def run(self, *children: Child, silent_s: float = 60.0, idle_s: float = 60.0, ask_s: float = 0.2) -> None:
        supervisor = Supervisor(
            children, stop=self.stop, say=self.said.append, silent_s=silent_s, idle_s=idle_s, ask_s=ask_s
        )

        def supervise() -> None:
            try:
                if supervisor.start(also=lambda: True, report=lambda _share, _text: None):
                    self.said.append("ready")
                    supervisor.watch()
            except ConfigurationError as error:
                self.said.append(str(error))
            finally:
                supervisor.stop_all()

        self.threads.append(threading.Thread(target=supervise))
        self.threads[-1].start()

    def await_word(self, word: str) -> str:
        return eventually(
            lambda: next((each for each in self.said if word in each), ""), describe=lambda: f"{self.said}"
        )

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=15)
            assert not thread.is_alive()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()


def test_ready_is_said_when_every_process_works(world: World) -> None:
    may = threading.Event()
    first, second = world.child("first", SLEEPS), world.child("second", SLEEPS, works=lambda _child: may.is_set())
    world.run(first, second)
    eventually(lambda: first.pid and second.pid)
    assert "ready" not in world.said
    may.set()
    world.await_word("ready")


def test_a_crashed_process_comes_back_and_says_so(world: World) -> None:
    child = world.child("crashes", SLEEPS)
    world.run(child)
    world.await_word("ready")
    first = child.pid
    psutil.Process(first).kill()
    assert "crashes ended (signal 9); it starts again in 0." in world.await_word("ended")
    eventually(lambda: child.pid not in (0, first))


def test_a_process_that_never_starts_is_named_with_its_last_words(world: World) -> None:
    refuses = [sys.executable, "-S", "-E", "-c", "raise SystemExit('no such thing')"]
    world.run(world.child("broken", refuses, works=lambda _child: False))
    assert world.await_word("does not start").endswith("broken.log ends with: no such thing")


def test_a_paused_process_is_ended_and_comes_back(world: World) -> None:
    silent: set[int] = set()
    child = world.child("paused", SLEEPS, works=lambda child: child.pid not in silent)
    world.run(child, silent_s=0.5)
    world.await_word("ready")
    first = child.pid
    pause(first)
    silent.add(first)
    world.await_word("does not answer")
    eventually(lambda: child.pid not in (0, first))


def test_a_wedged_process_is_ended_and_comes_back(world: World) -> None:
    wedged: set[int] = set()
    child = world.child("wedged", SLEEPS, wedged=lambda child: child.pid in wedged)
    world.run(child, idle_s=0.5)
    world.await_word("ready")
    first = child.pid
    wedged.add(first)
    world.await_word("claims nothing although jobs wait")
    eventually(lambda: child.pid not in (0, first))


def test_a_process_nobody_can_ask_about_is_left_alone(world: World) -> None:
    asked = threading.Event()

    def works(_child: Child) -> bool:
        if "ready" in world.said:
            asked.set()
            raise Unavailable("the database is away", service="database")
        return True

    child = world.child("unknown", SLEEPS, works=works)
    world.run(child, silent_s=0.5)
    world.require_left_alone(child, once=asked)


def test_a_process_that_was_suspected_is_left_alone_while_nobody_can_ask(world: World) -> None:
    suspected = threading.Event()

    def leaves_its_work(_child: Child) -> bool:
        if "ready" not in world.said:
            return False
        if suspected.is_set():
            raise Unavailable("the database takes no writes", service="database")
        suspected.set()
        return True

    child = world.child("suspected", SLEEPS, wedged=leaves_its_work)
    world.run(child, idle_s=0.5)
    world.require_left_alone(child, once=suspected)


def test_stores_outlive_what_uses_them(world: World) -> None:
    children = [world.child(name, LEAVES_A_TIME, is_store=name == "store") for name in ("store", "user")]
    world.run(*children)
    world.await_word("ready")
    eventually(lambda: all(child.log.exists() and "up" in child.log.read_text() for child in children))
    world.end()
    ended = {child.service.name: float(child.log.read_text().split()[-1]) for child in children}
    order = sorted(ended, key=lambda name: ended[name])
    assert order == ["user", "store"]


def test_what_ignores_sigterm_is_killed_with_its_children(world: World) -> None:
    child = world.child("stubborn", STUBBORN, is_store=True)
    world.run(child)
    world.await_word("ready")
    eventually(lambda: child.log.exists() and child.log.read_text().count("up") == 2)  # it and its child
    victims = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
    world.end()
    eventually(lambda: all(map(has_ended, victims)))


def test_a_log_that_has_grown_long_is_kept_once_and_begun_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.stack.child._LOG_BYTES", 10)
    child = world.child("talks", SLEEPS)
    child.log.write_text("more than ten bytes")
    child.trim_log()
    assert child.log.read_text() == ""
    assert child.log.with_suffix(".log.1").read_text() == "more than ten bytes"
