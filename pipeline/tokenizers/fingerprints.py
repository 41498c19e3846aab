"""The fingerprint of a token spec: equal exactly when two specs give every text the same ids in the same frame.

It is part of every cache key, so what is hashed and how must never change; a new field means a new domain.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import orjson

from pipeline.framing import Frame, TokenIds
from pipeline.tokenizers.tokenizer import TokenizerIdentity

CANONICAL_FORM_VERSION = 1
"""Version 1 keeps a document's text verbatim."""

_DOMAIN = b"token-spec-v1"
_FINGERPRINT_BYTES = 16


def spec_fingerprint(identity: TokenizerIdentity, *, frame: Frame, golden_ids: Sequence[TokenIds]) -> str:
    """Return 32 lower-case hex characters: the first 16 bytes of SHA-256 over length-framed fields.

    Args:
        identity: What decides the ids of a text.
        frame: The whole frame.
        golden_ids: The ids of the golden texts as this process computed them, so that a library which encodes
            otherwise gets keys of its own.
    """
    state = hashlib.sha256()
    for field in (
        _DOMAIN,
        bytes.fromhex(identity.vocabulary_sha256),
        identity.pattern.encode(),
        orjson.dumps(dict(identity.special_tokens), option=orjson.OPT_SORT_KEYS),
        identity.normalizer.encode(),
        identity.options.encode(),
        frame.canonical_json(),
        b"%d" % CANONICAL_FORM_VERSION,
        *(ids.astype(np.dtype("<u4")).tobytes() for ids in golden_ids),
    ):
        state.update(len(field).to_bytes(8, "big"))
        state.update(field)
    return state.digest()[:_FINGERPRINT_BYTES].hex()
