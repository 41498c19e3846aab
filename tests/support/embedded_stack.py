"""`forefill up` under test: started as users start it, talked to by what its ready line says."""

import json
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.polling import eventually
from tests.support.ports import NO_TLS
from tests.support.processes import Process, Processes, forefill_command, has_ended

START_S = 90.0
CORPUS = "docs"


class EmbeddedStack:
    """One data directory, and the `up` that runs on it now, if one does."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.folder = folder
        self.processes = processes
        self.process: Process | None = None
        self.ready: dict[str, Any] = {}
        """The ready line of the last start."""
        self._commands: dict[str, list[str]] = {}

    def launch(self) -> Process:
        """Start `up` and return its process at once."""
        return self.processes.start(
            [*forefill_command(), "up", "--data-dir", str(self.folder), "--port", "0", "--workers", "1"],
            name="up",
            cwd=self.folder.parent,
        )

    def start(self) -> None:
        """Start `up` and wait for its ready line."""
        self.process = self.launch()
        self.ready = self.process.wait_for_json("ready", timeout_s=START_S)
        self._commands = {name: psutil.Process(pid).cmdline() for name, pid in self.pids().items()}

    def ensure_running(self) -> None:
        """Start it unless it runs."""
        if self.process is None or not self.process.is_running:
            self.start()

    def ensure_as_started(self) -> None:
        """Start it again if a process of its ready line has been replaced since."""
        self.ensure_running()
        if not all(map(psutil.pid_exists, self.pids().values())):
            self.running.terminate()
            self.start()

    @property
    def running(self) -> Process:
        """The process of `up`."""
        assert self.process is not None
        return self.process

    def pids(self) -> dict[str, int]:
        """Process ids of the ready line by a name for each, the supervisor's left out."""
        pids = self.ready["pids"]
        single = {name: pid for name, pid in pids.items() if isinstance(pid, int) and name != "supervisor"}
        return {**single, "api": pids["api"][0], "interactive": pids["workers"][0], "bulk": pids["workers"][1]}

    def find(self, name: str) -> psutil.Process:
        """Return the process that does now what one of the ready line did.

        Raises:
            LookupError: There is none at the moment.
        """
        for child in psutil.Process(self.running.pid).children():
            if child.cmdline() == self._commands[name]:
                return child
        raise LookupError(name)

    def everything(self) -> list[psutil.Process]:
        """The supervisor and all its descendants."""
        return [psutil.Process(self.running.pid), *self.running.children()]

    def forefill(self, *arguments: str, code: int = 0) -> Any:
        """Run a `forefill … --json` command on the data directory and return the object it printed last."""
        done = self.processes.run_forefill("--data-dir", str(self.folder), *arguments, "--json")
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None

    def get(self, path: str) -> Any:
        """GET from the API and return the answer's object."""
        answer = httpx.get(self.ready["api"] + path, timeout=10, trust_env=False, verify=NO_TLS)
        answer.raise_for_status()
        return answer.json()

    def put(self, document_id: str, text: str, *, corpus: str = CORPUS) -> str:
        """PUT one document and return the run's id."""
        body = {"documents": [{"id": document_id, "text": text}]}
        url = f"{self.ready['api']}/v1/corpora/{corpus}/documents"
        answer = httpx.put(url, json=body, timeout=10, trust_env=False, verify=NO_TLS)
        answer.raise_for_status()
        run_id: str = answer.json()["run_id"]
        return run_id

    def put_and_wait(self, document_id: str, text: str, *, corpus: str = CORPUS, timeout_s: float = 45.0) -> None:
        """PUT one document and wait until it is served; the API may be away for a moment."""
        run_id = eventually(
            lambda: self.put(document_id, text, corpus=corpus),
            timeout_s=timeout_s,
            describe=lambda: f"an accepted PUT: {self.running.log()}",
            tolerate=(httpx.HTTPError,),
        )
        eventually(
            lambda: self.get(f"/v1/runs/{run_id}")["state"] == "succeeded",
            timeout_s=timeout_s,
            describe=lambda: f"the end of run {run_id}: {self.running.log()}",
            tolerate=(httpx.HTTPError,),
        )

    def retrieve(self, query: str) -> dict[str, Any]:
        """Ask a question with the prompt's text."""
        body = {"corpus": CORPUS, "query": query, "include_text": True}
        answer = httpx.post(f"{self.ready['api']}/v1/retrieve", json=body, timeout=10, trust_env=False, verify=NO_TLS)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def serves(self, text: str, *, query: str) -> None:
        """Wait until a question is answered from the cache with a passage that holds a text."""

        def look() -> bool:
            found = self.retrieve(query)
            return text in found["prompt_text"] and bool(found["metadata"]["cache_hit"])

        eventually(look, timeout_s=45, describe=lambda: f"{text!r}: {self.running.log()}", tolerate=(httpx.HTTPError,))


def await_end(victims: list[psutil.Process], *, timeout_s: float) -> None:
    """Wait until all of these processes are gone."""
    eventually(lambda: all(map(has_ended, victims)), timeout_s=timeout_s, describe=lambda: f"the end of {victims}")
