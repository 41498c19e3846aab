"""A worker killed with SIGKILL in the middle of a run, and the run finishing all the same."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import psutil

from demo.asking import check_answers
from demo.checks import CannotGoOn
from demo.processes import command_line, has_ended
from demo.sample import edition
from demo.scene import Scene
from demo.stack import LEASE_S

_EDITIONS = ("Second edition", "Third edition", "Fourth edition", "Fifth edition")
_MIDDLE = 0.25
"""Share of the documents that must be done, and that must still wait, when the worker is killed."""


@dataclass(frozen=True, slots=True)
class Kill:
    """What was seen at the moment of the kill."""

    run_id: str
    done: int
    documents: int
    pending_after: int
    """Documents that still waited when the worker was gone."""
    at: float
    """Monotonic clock."""


def kill(scene: Scene, *, deleted: str) -> None:
    """Change every document, kill the worker in the middle, and show that nothing is lost."""
    texts = {name: text for name, text in scene.texts.items() if name != deleted}
    scene.screen.step(f"Change all {len(texts):,} documents and kill a worker in the middle")
    victim = _bulk_worker(scene)
    before = {document["id"]: document["generation"] for document in scene.client.documents()}
    for number, title in enumerate(_EDITIONS, start=1):
        run_id = scene.client.put(edition(texts, title))
        with scene.screen.progress("run", total=len(texts), unit="documents") as advance:

            def look(run: dict[str, Any]) -> None:
                advance(run["totals"]["done"])

            killed = _kill_in_the_middle(scene, run_id, victim)
            if killed is not None:
                _claim_kill(scene, killed, victim)
            run = scene.client.wait_for_run(run_id, look=look)
        if killed is not None:
            _claim_end(scene, run, killed)
            _claim_documents(scene, {name: before[name] + number for name in texts})
            return
        scene.screen.line("the run was over before the kill came; once more, with another edition")
    raise CannotGoOn(f"{len(_EDITIONS)} runs were over before a worker could be killed in the middle of one")


def _bulk_worker(scene: Scene) -> psutil.Process:
    """Return the worker, of those in the ready line, that takes large runs."""
    for pid in scene.ready.workers:
        if psutil.pid_exists(pid) and "bulk" in command_line(worker := psutil.Process(pid)):
            return worker
    raise CannotGoOn(f"none of the workers in the ready line, {scene.ready.workers}, takes the queue bulk")


def _kill_in_the_middle(scene: Scene, run_id: str, victim: psutil.Process) -> Kill | None:
    """Kill the worker as soon as a part of the run is done; return None if the run is nearly over by then."""
    while (run := scene.client.run(run_id))["finished_at"] is None:
        totals = run["totals"]
        least = _MIDDLE * totals["documents"]
        if totals["done"] >= least and totals["pending"] >= least:
            scene.stack.note_processes()
            os.kill(victim.pid, signal.SIGKILL)
            at = time.monotonic()
            psutil.wait_procs([victim], timeout=5)
            after = scene.client.run(run_id)["totals"]
            return Kill(run_id, totals["done"], totals["documents"], after["pending"], at)
    return None


def _claim_kill(scene: Scene, killed: Kill, victim: psutil.Process) -> None:
    scene.checks.holds(
        f"SIGKILL to worker {victim.pid} of the ready line with {killed.done:,} of {killed.documents:,} documents done",
        held=has_ended(victim) and killed.pending_after > 0,
        expected="the process is gone and documents still wait",
        seen=f"gone: {has_ended(victim)}, waiting: {killed.pending_after:,}",
    )


def _claim_end(scene: Scene, run: dict[str, Any], killed: Kill) -> None:
    totals = run["totals"]
    scene.checks.equal(
        f"the run finished {time.monotonic() - killed.at:.1f} s after the kill, all {totals['done']:,} documents done "
        f"(what a dead worker held is taken up after {LEASE_S} s here, 30 s by default)",
        expected=("succeeded", killed.documents, 0),
        seen=(run["state"], totals["done"], totals["dead"]),
    )


def _claim_documents(scene: Scene, expected: dict[str, int]) -> None:
    """Claim that every document is served and cached as it should be, and that questions are answered from that."""
    documents = scene.client.documents()
    served = {document["id"]: document["served_generation"] for document in documents}
    wrong = sorted(name for name in expected.keys() | served.keys() if expected.get(name) != served.get(name))
    scene.checks.equal(
        "every document is served in its new generation, the deleted one is not", expected=[], seen=wrong[:5]
    )
    passages = [passage for document in documents for passage in document["passages"]]
    scene.checks.equal(
        f"all {len(passages):,} passages are in the cache",
        expected=len(passages),
        seen=sum(passage["cached"] for passage in passages),
    )
    answers = [scene.client.retrieve(question.text) for question in scene.questions]
    check_answers(scene, answers, "asked again")
    stale = {
        name: sorted(generations)
        for answer in answers
        for name, generations in answer.generations.items()
        if generations != {expected.get(name)}
    }
    scene.checks.equal("no answer holds a passage of an older generation", expected={}, seen=stale)
