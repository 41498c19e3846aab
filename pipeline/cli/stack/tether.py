"""Run a command that cannot outlive its supervisor: `python tether.py PARENT_PID COMMAND…`.

The process becomes the command, with the same process id. On Linux the kernel sends it SIGKILL when the thread that
started it ends, so that even a supervisor killed with SIGKILL leaves nothing behind. Imports nothing of Forefill, so
that it costs milliseconds.
"""

import _signal  # type: ignore[import-not-found]  # no stubs; `signal` itself takes longer to load

if __name__ == "__main__":
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # ends it at once, as SIGTERM does, whatever is loaded below

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str]) -> list[str]:
    """Return what to run so that a command cannot outlive the thread that starts it."""
    return [sys.executable, "-S", "-E", __file__, str(os.getpid()), *command]


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != int(parent):
            sys.exit("the supervisor ended before the command was started")
    os.execv(command[0], command)  # noqa: S606  # the supervisor's own command, no shell


if __name__ == "__main__":
    main()
