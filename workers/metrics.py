"""What a worker's children count, exported by its main process: children come and go, and each has its own memory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_HOST = "127.0.0.1"


class _Counts(Collector):
    """Counters and histograms of all processes of this worker, those that ended included. Gauges are the API's."""

    def __init__(self, folder: Path) -> None:
        self._all = MultiProcessCollector(CollectorRegistry(), path=str(folder))  # type: ignore[no-untyped-call]  # as published

    def collect(self) -> Iterator[Metric]:
        """Sum the files of the folder."""
        return (metric for metric in self._all.collect() if metric.type != "gauge")  # type: ignore[no-untyped-call]  # the same


def serve_metrics(port: int) -> None:
    """Answer `/metrics` on loopback for the rest of this process' life; 0 does nothing.

    The folder of the counts must have been named before this process imported prometheus_client; `forefill worker` and
    `forefill up` do so.
    """
    folder = os.environ.get(_FOLDER_VARIABLE)
    if not port or not folder:
        return
    registry = CollectorRegistry()
    registry.register(_Counts(Path(folder)))
    try:
        start_http_server(port, addr=_HOST, registry=registry)
    except OSError as error:
        _log.error("worker.metrics_not_served", port=port, error=str(error))  # the work is worth more than its figures


def remove_counts() -> None:
    """Remove the folder of the counts, when the worker ends."""
    if folder := os.environ.get(_FOLDER_VARIABLE):
        shutil.rmtree(folder, ignore_errors=True)
