"""How a process of ours listens for HTTP: uvicorn, with a bound on everything that a client can take without a key.

uvicorn's parser, httptools, takes heads of any length, and waits for a client as long as that client likes. Both
servers of ours (`api.serving`, `pipeline.retrieval.owner.server`) therefore run `GuardedProtocol` on `GuardedServer`.
ADR 0005 (`docs/decisions/`) says why, and what else there was.

What must stay true, whatever a client sends, does not send, or does not read:

- It takes one connection of a bounded number, at most 64 KiB of head, one read of the socket, and what the application
  takes of its body: no memory beside.
- It takes that for a bounded time: for the head, for the body, between requests, for reading an answer.
- Whoever connects when all are taken gets the place of one that makes us wait. When none does, probes are still
  answered: a process is not ended for having much to do.
"""

from pipeline.listening.connections import Connections, Refusal
from pipeline.listening.limits import ListeningLimits, limits_of
from pipeline.listening.server import GuardedServer, listening_options

__all__ = ["Connections", "GuardedServer", "ListeningLimits", "Refusal", "limits_of", "listening_options"]
