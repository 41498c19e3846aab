"""Every process that the demo starts, directly or not: found while it runs, and looked for after the end."""

import uuid
from contextlib import suppress

import psutil

MARK = "FOREFILL_DEMO_RUN"
"""Environment variable that every process of one demo inherits."""

_ADDRESSES = {"127.0.0.1", "::1"}


class Family:
    """The processes of one demo.

    They are known by what they inherit, so that also one whose parents are gone is found; and, because a server may
    overwrite its environment with its title, by having been seen below the first one.
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        """What `MARK` is set to."""
        self._seen: dict[int, psutil.Process] = {}

    def note(self, root_pid: int) -> list[psutil.Process]:
        """Remember the process and all that is below it now; return those."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(root_pid)
            for process in (root, *root.children(recursive=True)):
                # A process id may be used again: the newer process is another one.
                if self._seen.get(process.pid) != process:
                    self._seen[process.pid] = process
        return [process for process in self._seen.values() if not has_ended(process)]

    def alive(self) -> list[psutil.Process]:
        """Return all that still run."""
        noted = {process.pid: process for process in self._seen.values() if not has_ended(process)}
        marked = {process.pid: process for process in psutil.process_iter() if self._is_marked(process)}
        return list({**marked, **noted}.values())

    def _is_marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            return not has_ended(process) and process.environ().get(MARK) == self.mark
        return False


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process is gone, or dead and only not reaped by whoever adopted it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Return the addresses and ports on which processes listen."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


def beyond_loopback(addresses: set[tuple[str, int]]) -> list[str]:
    """Return the addresses that others than this machine could reach."""
    return sorted(f"{ip}:{port}" for ip, port in addresses if ip not in _ADDRESSES)


def command_line(process: psutil.Process) -> str:
    """Return what a process was started with; empty when it is gone."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return " ".join(process.cmdline())
    return ""
