"""Point ids: the same passage of the same document always has the same id, in every process and for ever."""

from collections import Counter
from collections.abc import Iterable
from uuid import NAMESPACE_URL, uuid5


def point_id(corpus_uid: str, *, document_id: str, passage_key: str, occurrence: int) -> str:
    """Return the id of one passage of one document.

    Args:
        corpus_uid: Identity of the corpus, not its name: a corpus made anew under an old name shares no id with it.
        document_id: The caller's id; any characters.
        passage_key: 32 lower-case hex characters.
        occurrence: 0 for the first passage of the document with this key, 1 for the second.

    Returns:
        A UUID as 36 lower-case characters.
    """
    namespace = uuid5(NAMESPACE_URL, f"forefill:corpus:{corpus_uid}")
    return str(uuid5(namespace, _framed(document_id, passage_key, str(occurrence))))


def point_ids(corpus_uid: str, *, document_id: str, passage_keys: Iterable[bytes]) -> tuple[str, ...]:
    """Return the ids of a document's passages in order; equal passages are told apart by their occurrence.

    Args:
        corpus_uid: As for `point_id`.
        document_id: The caller's id.
        passage_keys: 16 bytes each.
    """
    seen: Counter[bytes] = Counter()
    identities = []
    for key in passage_keys:
        identities.append(point_id(corpus_uid, document_id=document_id, passage_key=key.hex(), occurrence=seen[key]))
        seen[key] += 1
    return tuple(identities)


def _framed(*fields: str) -> str:
    """Join fields so that no two different lists give the same text: each is preceded by its length."""
    return "".join(f"{len(field)}:{field}" for field in fields)
