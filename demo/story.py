"""The demo from start to stop, part by part."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from demo.asking import ask, ingest
from demo.changing import delete, edit
from demo.checks import CannotGoOn, Checks
from demo.client import Answer, Client
from demo.generating import engine_running, engine_variables, generate
from demo.killing import kill
from demo.processes import beyond_loopback, listening
from demo.sample import CORPUS, Question, load_questions, load_texts
from demo.scene import Scene
from demo.screen import Screen
from demo.stack import STOP_S, Ready, Stack
from demo.tokenizing import load_tiktoken
from tests.support.llm import Engine

_FLOWER_WORKERS = "/workers?json=1"
_FLOWER_TIMEOUT_S = 10.0
_FLOWER_HEARS_S = 15.0
_LOOK_S = 0.2
_ANSWERED = 2


def tell(screen: Screen, checks: Checks, folder: Path, *, command: Sequence[str], llm: bool = False) -> None:
    """Show everything; whatever happens, stop what was started and check that it is gone.

    Args:
        screen: Where it is shown.
        checks: Takes the claims.
        folder: Empty; everything is written there.
        command: What runs `forefill`.
        llm: Whether a real engine answers two of the questions.
    """
    with ExitStack() as opened, checks.errors_are_failures():
        engine = opened.enter_context(engine_running(folder)) if llm else None
        stack = Stack(folder, command=command, variables=engine_variables(engine) if engine else None)
        try:
            with checks.errors_are_failures():
                _perform(screen, checks, stack, engine)
        finally:
            if engine is not None:
                engine.close()
            _stop(screen, checks, stack)


def _perform(screen: Screen, checks: Checks, stack: Stack, engine: Engine | None) -> None:
    if engine is not None:
        stack.family.note(engine.process.pid)
    began = time.monotonic()
    ready = _start(screen, checks, stack)
    with Client(ready.api, corpus=CORPUS) as client:
        scene = Scene(
            screen=screen,
            checks=checks,
            stack=stack,
            ready=ready,
            client=client,
            judge=load_tiktoken(stack.folder),
            began=began,
            folder=stack.folder,
            texts=load_texts(),
            questions=load_questions(),
        )
        ingest(scene)
        (edited, deleted) = _choose(ask(scene))
        edit(scene, *edited)
        delete(scene, *deleted)
        kill(scene, deleted=deleted[1])
        if engine is not None:
            generate(scene, engine, scene.questions[:_ANSWERED])
        _look_at_flower(scene)


def _start(screen: Screen, checks: Checks, stack: Stack) -> Ready:
    screen.step("Start everything on this machine")
    screen.command(f"forefill up --data-dir {stack.folder}/data --port 0")
    began = time.monotonic()
    with screen.waiting("starting API, workers, dispatcher, beat, Flower, two Valkeys and Qdrant's engine"):
        ready = stack.start()
    spent_s = time.monotonic() - began
    processes = stack.family.note(ready.supervisor)
    addresses = listening(processes)
    checks.holds(
        f"ready after {spent_s:.1f} s: {len(processes)} processes, API at {ready.api}",
        held=addresses,
        expected="processes that listen",
        seen="none",
    )
    checks.equal(
        f"all {len(addresses)} ports are on loopback: nobody else can reach them",
        expected=[],
        seen=beyond_loopback(addresses),
    )
    return ready


def _choose(pairs: list[tuple[Question, Answer]]) -> tuple[tuple[Question, str], tuple[Question, str]]:
    """Return two questions with a document each that answers them and was found."""
    found = [
        (question, document_id)
        for question, answer in pairs
        for document_id in sorted(question.relevant & answer.generations.keys())
    ]
    if len(found) < 2:
        raise CannotGoOn("fewer than two questions found their document: there is nothing to edit and to delete")
    return found[0], found[1]


def _look_at_flower(scene: Scene) -> None:
    scene.screen.step("Look at the workers in Flower")
    user, _, password = scene.ready.flower_login.partition(":")
    expected = ["bulk", "interactive"]
    with httpx.Client(base_url=scene.ready.flower, timeout=_FLOWER_TIMEOUT_S, trust_env=False) as http:
        stranger = http.get(_FLOWER_WORKERS).status_code
        http.auth = (user, password)
        deadline = time.monotonic() + _FLOWER_HEARS_S
        # Flower knows of workers by their heartbeats.
        while (alive := _alive_in_flower(http)) != expected and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
    scene.checks.equal(
        f"Flower at {scene.ready.flower} answers with a login and knows "
        f"{' and '.join(alive)} alive; without one {stranger}",
        expected=(401, expected),
        seen=(stranger, alive),
    )


def _alive_in_flower(http: httpx.Client) -> list[str]:
    """Return the names of the workers that Flower shows as alive."""
    answer = http.get(_FLOWER_WORKERS).raise_for_status()
    return sorted(worker["hostname"].partition("@")[0] for worker in answer.json()["data"] if worker["status"])


def _stop(screen: Screen, checks: Checks, stack: Stack) -> None:
    screen.step("Stop everything")
    code, spent_s = stack.stop()
    left = stack.end_what_is_left()
    checks.holds(
        f"`forefill up` ended {spent_s:.1f} s after SIGTERM",
        held=code == 0 and spent_s <= STOP_S,
        expected=f"exit code 0 within {STOP_S:g} s",
        seen=f"exit code {code} after {spent_s:.1f} s",
    )
    checks.equal("no process that was started here is left", expected=[], seen=left)
