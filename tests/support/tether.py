"""Run a command that cannot outlive the test run: `python tether.py PARENT_PID SIGNAL UID:GID COMMAND…`.

The process becomes the command (same pid). On Linux the kernel sends it SIGNAL when the thread that started it ends,
so that even a test run killed with SIGKILL leaves no server behind. `UID:GID` drops root's rights first (`-` keeps
them): PostgreSQL refuses to run as root. Imports nothing of the repository, so that it starts in milliseconds.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drop rights, tie the process to its parent, become the command."""
    parent, signal_number, owner, *command = sys.argv[1:]
    if owner != "-":
        uid, gid = (int(part) for part in owner.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_number))  # after setuid, which clears it
        if os.getppid() != int(parent):
            sys.exit("the parent ended before the command was started")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
