"""What must hold when every fault is healed: everything accepted is served, exactly, and nothing else is."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import orjson

from pipeline.documents.passages import passage_key
from pipeline.token_cache import decode_entry, parse_entry_key
from tests.campaign.actors import CORPUS, list_documents
from tests.campaign.stack import CampaignStack
from tests.campaign.traffic import Client, Traffic
from tests.campaign.truth import Truth, encode
from tests.support.oracle import Published, check_published
from tests.support.polling import DeadlineExceededError, eventually

_TERMINAL_BAD = ("failed", "partial")
_PAGE = 1000


@dataclass(slots=True)
class Findings:
    """What is wrong, by kind; empty if nothing is."""

    lost: list[str] = field(default_factory=list)
    """Accepted, but not served as accepted; or deleted, but served."""
    dead: list[str] = field(default_factory=list)
    """Documents that were given up, and runs with such documents or that could not run."""
    unsettled: list[str] = field(default_factory=list)
    """What had not come to an end in time."""
    differing: list[str] = field(default_factory=list)
    """Ledger, cache and points that do not say the same; entries that are not the reference ids."""
    entries: int = 0
    """Entries of the cache that were decoded and compared."""


class Audit:
    """Waits until the stack has settled, then looks at everything."""

    def __init__(self, stack: CampaignStack, truth: Truth, *, say: Callable[[str], None], settle_s: float) -> None:
        self._stack = stack
        self._truth = truth
        self._say = say
        self._settle_s = settle_s
        self._client = Client(stack.api_url, Traffic(), "audit")
        self._found = Findings()
        self._heads: dict[str, int] = {}

    def run(self) -> Findings:
        """Return what is wrong."""
        with closing(self._client):
            self._settle()
            self._say("audit: documents, runs")
            self._check_documents()
            self._check_runs()
            self._say("audit: SQL, cache and points against the oracle")
            self._check_stores()
            self._check_entries()
            self._say("audit: verify")
            self._verify()
            self._say("audit: every document is asked for")
            self._ask_for_all()
        return self._found

    def _settle(self) -> None:
        try:
            eventually(self._has_settled, timeout_s=self._settle_s, describe=self._unsettled)
        except DeadlineExceededError as error:
            self._found.unsettled.append(str(error)[:3000])

    def _has_settled(self) -> bool:
        runs = self._client.ask("GET", "/v1/runs", params={"unfinished": True, "limit": 100})
        for run in runs["runs"] if runs is not None else ():
            if run["state"] == "paused":
                self._client.ask("POST", f"/v1/runs/{run['id']}/resume", fine=frozenset({409}))
        stats = self._client.ask("GET", "/v1/stats")
        if runs is None or runs["runs"] or stats is None:
            return False
        shares = stats["coverage"].get(CORPUS, {}).values()
        found = list_documents(self._client)
        return (
            bool(shares)
            and all(share == 1.0 for share in shares)
            and found is not None
            and all(each["served_generation"] == each["generation"] for each in found.values())
        )

    def _unsettled(self) -> str:
        runs = self._client.ask("GET", "/v1/runs", params={"unfinished": True, "limit": 100})
        stats = self._client.ask("GET", "/v1/stats")
        found = list_documents(self._client) or {}
        behind = [each for each in found.values() if each["served_generation"] != each["generation"]]
        shown = [
            (each["id"], each["generation"], each["served_generation"], each["state"], each["last_error"])
            for each in behind
        ]
        return f"settling: unfinished runs {runs}; statistics {stats}; documents behind {shown[:20]}"

    def _check_documents(self) -> None:
        found = list_documents(self._client)
        if found is None:
            self._found.unsettled.append("the list of documents was not answered")
            return
        living = self._truth.living()
        self._found.lost += [f"{name} was accepted and is not there" for name in sorted(living.keys() - found.keys())]
        self._found.lost += [f"{name} was deleted and is there" for name in sorted(found.keys() - living.keys())]
        for name in sorted(living.keys() & found.keys()):
            document, head = found[name], living[name][0]
            states = (document["generation"], document["served_generation"], document["state"])
            self._heads[name] = max(head, document["generation"])  # a verification may have published it again
            if states != (self._heads[name], self._heads[name], "served"):
                self._found.lost.append(f"{name} is {states}, and {head} was accepted; {document['last_error']}")
            if document["state"] == "dead":
                self._found.dead.append(f"{name}@{document['generation']}: {document['last_error']}")

    def _check_runs(self) -> None:
        after = ""
        while True:
            page = self._client.ask("GET", "/v1/runs", params={"limit": _PAGE, "after": after})
            if page is None:
                self._found.unsettled.append("the list of runs was not answered")
                return
            for run in page["runs"]:
                if run["state"] in _TERMINAL_BAD or run["totals"].get("dead"):
                    errors = self._client.ask("GET", f"/v1/runs/{run['id']}/errors", params={"limit": 3})
                    said = orjson.dumps({"run": run, "errors": errors}).decode()
                    self._found.dead.append(f"{run['kind']} {run['state']}: {said[:1200]}")
            if page["next"] is None:
                return
            after = page["next"]

    def _check_stores(self) -> None:
        living = self._truth.living()
        expected = {name: Published(text, self._heads.get(name, head)) for name, (head, text) in living.items()}
        try:
            check_published(self._stack, CORPUS, expected)
        except AssertionError as error:
            self._found.differing.append(f"oracle: {str(error)[:3000]}")

    def _check_entries(self) -> None:
        """Decode every entry that the cache holds, also of texts that are not served any more."""
        texts = {passage_key(text): text for text in self._truth.texts()}
        secret = self._stack.settings.entry_hmac_key
        hmac_key = secret.get_secret_value().encode() if secret else None
        with closing(self._stack.cache()) as cache:
            for raw in cache.scan_iter(match="ff:*:*", count=500):
                name = parse_entry_key(raw)
                value = cache.get(raw)
                if name is None or not isinstance(value, bytes):
                    continue
                self._found.entries += 1
                try:
                    ids = decode_entry(raw.decode(), value, hmac_key=hmac_key).ids.tolist()
                except Exception as error:  # noqa: BLE001  # whatever it is, the entry does not decode
                    self._found.differing.append(f"{raw.decode()} does not decode: {type(error).__name__}: {error}")
                    continue
                text = texts.get(name.passage_key)
                if text is None:
                    self._found.differing.append(f"{raw.decode()} is of no text that was ever sent")
                elif ids != encode(f"{text}\n\nD")[:-1]:
                    self._found.differing.append(f"{raw.decode()} holds other ids than the reference")

    def _verify(self) -> None:
        done = self._stack.forefill("verify", "--corpus", CORPUS, "--json")
        if done.returncode:
            self._found.differing.append(
                f"verify: exit code {done.returncode}: {done.stdout[-1500:]}{done.stderr[-500:]}"
            )

    def _ask_for_all(self) -> None:
        """Ask for every document once: all of it from the cache, and its own head among what is found."""
        missed = 0
        for name, (head, _) in sorted(self._truth.living().items()):
            body = {"corpus": CORPUS, "query": f"What is in {name}?", "top_k": 8, "include_text": True}
            least = self._truth.least()
            answer = self._client.ask("POST", "/v1/retrieve", json=body)
            if answer is None:
                self._found.unsettled.append(f"no answer about {name}")
                continue
            self._truth.judge(answer, least=least)
            places = [f"{each['document_id']}@{each['generation']}" for each in answer["passages"]]
            if f"{name}@{self._heads.get(name, head)}" not in places:
                self._found.lost.append(f"a query for {name}@{head} finds {', '.join(places) or 'nothing'}")
            missed += sum(passage["source"] == "miss" for passage in answer["passages"])
        if missed:
            self._found.differing.append(f"{missed} passages were not in the cache although coverage is 1.0")
