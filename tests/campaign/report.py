"""What came of a campaign: a table, an object for machines, and the verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.campaign.audit import Findings
from tests.campaign.restarts import Restarts
from tests.campaign.traffic import Traffic
from tests.campaign.truth import Truth

if TYPE_CHECKING:
    from tests.campaign.run import Plan

_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was counted and found."""

    plan: "Plan"
    faults: Counter[str]
    traffic: Traffic
    truth: Truth
    findings: Findings
    restarts: Restarts
    errors: Sequence[str]
    """What went wrong in the campaign's own threads."""
    took_s: float

    @property
    def verdict(self) -> dict[str, list[str]]:
        """What is wrong, by what must hold."""
        return {
            "nothing lost": self.findings.lost,
            "nothing stale": self.truth.stale,
            "nothing wrong": self.truth.wrong,
            "nothing dead": self.findings.dead,
            "everything ends": self.findings.unsettled,
            "ledger = cache = points": self.findings.differing,
            "no answer that must not be": self.traffic.faults,
            "nobody restarted needlessly": self.restarts.needless,
            "the campaign itself": list(self.errors),
        }

    @property
    def holds(self) -> bool:
        """Whether all of it holds."""
        return not any(self.verdict.values())

    def to_object(self) -> dict[str, Any]:
        """Return it for JSON."""
        statuses: dict[str, dict[str, int]] = {}
        for (who, status), count in sorted(self.traffic.statuses.items()):
            statuses.setdefault(who, {})[status] = count
        return {
            "database": self.plan.database,
            "minutes": self.plan.minutes,
            "seed": self.plan.seed,
            "took_s": round(self.took_s, 1),
            "faults": dict(self.faults),
            "answers": statuses,
            "slowest_s": round(self.traffic.slowest_s, 2),
            "accepted_changes": self.truth.accepted,
            "checked_answers": self.truth.checked_answers,
            "checked_passages": self.truth.checked_passages,
            "checked_entries": self.findings.entries,
            "expected_restarts": self.restarts.expected,
            "holds": self.holds,
            "wrong": {what: found for what, found in self.verdict.items() if found},
        }

    def print(self, console: Console) -> None:
        """Print it for people."""
        console.print(_table("faults", [(kind, str(count)) for kind, count in self.faults.most_common()]))
        said = self.to_object()
        answers = [
            (who, ", ".join(f"{status}: {count:,}" for status, count in found.items()))
            for who, found in said["answers"].items()
        ]
        answers.append(("slowest", f"{said['slowest_s']:.1f} s; {self.traffic.slow} took longer than 35 s"))
        console.print(_table("answers by status", answers))
        checked = ("accepted_changes", "checked_answers", "checked_passages", "checked_entries", "expected_restarts")
        console.print(_table("checked", [(name.replace("_", " "), f"{said[name]:,}") for name in checked]))
        verdict = [(what, "yes" if not found else f"NO: {len(found)}") for what, found in self.verdict.items()]
        console.print(_table("verdict", verdict))
        for what, found in self.verdict.items():
            for sentence, count in Counter(found).most_common(_MOST_SHOWN):
                console.print(f"{what}: {count} times: {sentence}", highlight=False, markup=False)
        given = f"--database {self.plan.database} --minutes {self.plan.minutes:g} --seed {self.plan.seed}"
        again = f"python -m tests.campaign {given}"
        console.print(
            f"{'HOLDS' if self.holds else 'DOES NOT HOLD'} after {self.took_s:.0f} s; again: {again}", style="bold"
        )


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    for row in rows:
        table.add_row(*row)
    return table
