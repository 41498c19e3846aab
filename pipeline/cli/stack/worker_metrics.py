"""Where a worker's children leave their counts for its main process to export: a file for each, mapped into memory."""

import shutil
import tempfile
from pathlib import Path

from pipeline.settings import Settings
from pipeline.telemetry.metrics import FOLDER_VARIABLE


def empty_folder(folder: Path) -> None:
    """Make an empty folder, for the counts of an earlier worker are not this one's.

    Raises:
        OSError: It cannot be made or emptied.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return what a worker that is started by hand needs to export its children's counts; it removes the folder."""
    if not settings.worker_metrics_port:
        return {}
    return {FOLDER_VARIABLE: tempfile.mkdtemp(prefix="forefill-metrics-")}
