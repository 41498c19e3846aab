"""One campaign from start to verdict."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.actors import Actor, Operator, Reader, Watcher, Writer
from tests.campaign.audit import Audit, Findings
from tests.campaign.faults import draw_faults, possible_faults
from tests.campaign.report import Report
from tests.campaign.restarts import Restarts
from tests.campaign.stack import CampaignStack, DatabaseKind
from tests.campaign.traffic import Traffic
from tests.campaign.truth import Truth

_WRITERS = 3
_READERS = 3
_CALM_S = (2.0, 7.0)
"""Between two faults, so that work gets done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign is made of."""

    database: DatabaseKind
    minutes: float
    seed: int
    documents: int = 150
    settle_s: float = 420.0
    """How long everything may take to come to an end when all faults are healed."""
    logs: Path | None = None
    """Folder that is given the logs of all processes."""
    kinds: Sequence[str] = ()
    """Only these faults; all if empty."""


@dataclass(slots=True)
class _Log:
    """What is said while it runs, with the seconds since the start."""

    out: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def __call__(self, sentence: str) -> None:
        self.out(f"[{time.monotonic() - self.began:7.1f} s] {sentence}")


def run_campaign(plan: Plan, *, out: Callable[[str], None]) -> Report:
    """Run a campaign and return what came of it."""
    say = _Log(out)
    say(f"a campaign on {plan.database}: {plan.minutes:g} minutes, seed {plan.seed}, {plan.documents} documents")
    with CampaignStack(plan.database, logs=plan.logs) as stack:
        say(f"ready: {stack.api_url}, data in {stack.folder}")
        traffic, truth = Traffic(), Truth()
        restarts = Restarts(stack, say)
        restarts.start()
        errors: list[str] = []
        with _acting(plan, stack, traffic, truth, errors, say):
            faults = _inject(plan, stack, say)
        say("all faults are healed; waiting until everything has come to an end")
        stack.ensure_up()
        findings = Findings() if stack.is_lost else Audit(stack, truth, say=say, settle_s=plan.settle_s).run()
        restarts.stop()
        errors += stack.failures
        return Report(plan, faults, traffic, truth, findings, restarts, errors, took_s=time.monotonic() - say.began)


@contextmanager
def _acting(
    plan: Plan, stack: CampaignStack, traffic: Traffic, truth: Truth, errors: list[str], say: Callable[[str], None]
) -> Iterator[None]:
    """Have everybody act, and end them; what went wrong in one of them is added to the errors."""
    over, abandoned = threading.Event(), threading.Event()
    names = [f"document{number:03}" for number in range(plan.documents)]
    common = (stack.api_url, traffic, truth, over, abandoned, plan.seed)
    actors: list[Actor] = [
        Watcher(*common, name="watcher", pause_s=0.5),
        Operator(*common, name="operator", pause_s=3, say=say),
        *(
            Writer(*common, name=f"writer-{number}", pause_s=0.4, documents=names[number::_WRITERS])
            for number in range(_WRITERS)
        ),
        *(Reader(*common, name=f"reader-{number}", pause_s=0.05, documents=names) for number in range(_READERS)),
    ]
    for actor in actors:
        actor.start()
    try:
        yield
    except BaseException:
        abandoned.set()
        raise
    finally:
        over.set()
        for actor in actors:
            actor.join()
            errors += actor.errors


def _inject(plan: Plan, stack: CampaignStack, say: Callable[[str], None]) -> Counter[str]:
    """Inject faults by the seed's draw until the time is over; return how many of each kind."""
    draw = random.Random(plan.seed)
    known = [fault for fault in possible_faults(stack) if not plan.kinds or fault.kind in plan.kinds]
    done: Counter[str] = Counter()
    over = threading.Event()  # nobody sets it: a pause that Ctrl-C ends
    ends = time.monotonic() + plan.minutes * 60
    if not stack.disk_is_ours:
        say("no disk of its own could be mounted for the data (only root may): full disk is left out")
    over.wait(min(10.0, plan.minutes * 6))  # some documents first
    while time.monotonic() < ends and not stack.is_lost:
        faults = draw_faults(known, draw)
        hold_s = max(draw.uniform(*fault.hold_s) for fault in faults)
        with ExitStack() as healing:
            for fault in faults:
                what = healing.enter_context(fault.inject(stack, draw))
                done[fault.kind] += 1
                say(f"{fault.kind}: {what}, for {hold_s:.1f} s")
            over.wait(hold_s)
        over.wait(draw.uniform(*_CALM_S))
    return done
