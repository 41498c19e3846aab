"""The embedded Qdrant engine: one process that owns the shards and speaks the part of Qdrant's REST Forefill uses.

Started by `forefill qdrant` or `python -m pipeline.retrieval.owner`. Not a Qdrant server: request bodies are parsed
with qdrant-client's own models, and whatever is not served, or would be ignored, is answered with 400 and a sentence.

What must stay true:

- One process per data folder (`flock`), one thread: the engine holds the interpreter's lock in every call, so threads
  would only add races. Each request is applied whole, or not at all.
- Everything is checked before it reaches the engine. A single bad sparse vector panics *after* it was logged, and the
  shard never loads again.
- A call answered with 200 survives `kill -9`; power loss may cost what came after the last flush.
- `optimize()` is never called: it freezes the process for seconds. Search is brute force, good to about 50,000 points.
"""
