"""Does a process serve, and does a query work? Asked over HTTP, as a client would."""

import httpx

from pipeline.cli.stack.ports import LOOPBACK
from pipeline.database import Database
from pipeline.documents.corpora import list_corpora
from pipeline.errors import Unavailable

_TIMEOUT_S = 3.0
_CORPORA = 3
_NO_CORPUS = "none-yet"


class Inquirer:
    """Asks the services of one stack; safe to share between threads."""

    def __init__(self) -> None:
        # Loopback is never reached through a proxy, whatever the environment says.
        self._client = httpx.Client(trust_env=False, timeout=_TIMEOUT_S)

    def serves(self, port: int, path: str) -> bool:
        """Return whether a GET is answered with 200."""
        try:
            return self._client.get(f"http://{LOOPBACK}:{port}{path}").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def shows_workers(self, port: int, login: str) -> bool:
        """Have Flower look at the workers; return whether it sees any. By itself it looks only once, at its start."""
        user, _, password = login.partition(":")
        url = f"http://{LOOPBACK}:{port}/api/workers"
        try:
            answer = self._client.get(url, params={"refresh": "1"}, auth=(user, password))
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK and bool(answer.json())

    def answers_queries(self, api_port: int, database: Database) -> bool:
        """Return whether the API has all it depends on and answers a question about one of the first corpora.

        One broken corpus must not keep the rest from being served. Without a corpus, or with API keys, the answer is a
        refusal that only an API in working order can give.
        """
        api = f"http://{LOOPBACK}:{api_port}"
        try:
            ready = self._client.get(f"{api}/readyz")
            if ready.status_code != httpx.codes.OK or ready.json()["degraded"]:
                return False
            return any(self._ask(api, corpus) for corpus in _corpora(database))
        except (httpx.HTTPError, Unavailable):
            return False

    def _ask(self, api: str, corpus: str) -> bool:
        body = {"corpus": corpus, "query": "ready?", "top_k": 1}
        return self._client.post(f"{api}/v1/retrieve", json=body).status_code < httpx.codes.INTERNAL_SERVER_ERROR


def _corpora(database: Database) -> list[str]:
    with database.read() as connection:
        return [corpus.name for corpus in list_corpora(connection, limit=_CORPORA)] or [_NO_CORPUS]
