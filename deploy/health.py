"""A container's health check with Python's own library only: `python health.py http PORT PATH · beat FILE`.

Exit code 0 means healthy; otherwise one sentence says what is wrong (`docker inspect` shows it).
"""

import http.client
import sys
import time
from collections.abc import Callable
from pathlib import Path

_TIMEOUT_S = 4.0
_BEAT_S = 600.0
"""Beat writes its file every 3 min."""


def http_answers(port: str, path: str) -> str | None:
    """Return what is wrong with a service on this container's loopback, None if it answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT_S)  # never through a proxy
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"port {port} does not answer: {error}"
    finally:
        connection.close()
    return None if answer.status == http.HTTPStatus.OK else f"{path} answers {answer.status}: {body}"


def beat_ticks(schedule: str) -> str | None:
    """Return what is wrong with beat, None if it wrote its file lately (some libraries add a suffix to the name)."""
    file = Path(schedule)
    written = [path.stat().st_mtime for path in file.parent.glob(f"{file.name}*")]
    if not written:
        return f"there is no {schedule}"
    age_s = time.time() - max(written)
    return None if age_s < _BEAT_S else f"{schedule} was written {age_s:.0f} s ago"


_CHECKS: dict[str, Callable[..., str | None]] = {"http": http_answers, "beat": beat_ticks}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    sys.exit(_CHECKS[name](*arguments))
