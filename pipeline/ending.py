"""How a process ends when SIGTERM or SIGINT asks for it, from its first line to its last.

Loading takes a second, in which there is nothing to save: the signals then have their default action, which ends the
process at once and prints nothing (Python's own would be a traceback from the middle of an import). Who has something
to save takes the signals later and gives them back with `end_at_once` when it is saved.

It is every entry point's first line. So it knows the C module only: `signal` itself makes enumerations of its numbers,
and what they need takes longer to load than Python itself.
"""

import _signal  # type: ignore[import-not-found]  # no stubs: see above


def end_at_once() -> None:
    """Let SIGTERM and SIGINT end this process by their default action, which nothing can catch or delay."""
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_DFL)
