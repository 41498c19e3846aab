"""The campaign in its shortest form, so that it does not rot; the long one is `make campaign`."""

import json
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Processes

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

CAMPAIGN = (sys.executable, "-m", "tests.campaign", "--json", "--documents", "60")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_minute_of_faults_leaves_nothing_lost_stale_wrong_or_dead(processes: Processes, database: str) -> None:
    campaign = processes.start(
        [*CAMPAIGN, "--database", database, "--minutes", "1", "--seed", "1"], name="campaign", cwd=ROOT
    )
    code = campaign.wait(timeout_s=1100)
    report = json.loads(campaign.output())
    assert (code, report["wrong"]) == (0, {}), campaign.log()
    assert sum(report["faults"].values()) >= 3
    assert report["checked_passages"] > 100


def test_an_interrupted_campaign_leaves_nothing_behind(processes: Processes) -> None:
    campaign = processes.start([*CAMPAIGN, "--minutes", "5"], name="campaign", cwd=ROOT)
    folder = Path(campaign.wait_for_output(r"data in (\S+)/disk/data", timeout_s=300).group(1))
    assert folder.is_relative_to(tempfile.gettempdir())
    campaign.send(signal.SIGINT)
    assert campaign.wait(timeout_s=120) == 128 + signal.SIGINT
    assert [process for process in psutil.process_iter() if _is_about(folder, process)] == []
    assert not folder.exists()
    assert str(folder) not in Path("/proc/mounts").read_text(encoding="utf-8")


def _is_about(folder: Path, process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return str(folder) in " ".join(process.cmdline()) or Path(process.cwd()).is_relative_to(folder)
    return False
