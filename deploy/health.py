"""A container's health check with Python's own library only: `python health.py http PORT PATH`.

Exit code 0 means healthy; otherwise one sentence says what is wrong (`docker inspect` shows it).
"""

import http.client
import sys
from collections.abc import Callable

_TIMEOUT_S = 4.0


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


_CHECKS: dict[str, Callable[..., str | None]] = {"http": http_answers}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    sys.exit(_CHECKS[name](*arguments))
