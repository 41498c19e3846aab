"""Point ids: the same passage of the same document always has the same id, in every process and for ever."""

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


def _framed(*fields: str) -> str:
    """Join fields so that no two different lists give the same text: each is preceded by its length."""
    return "".join(f"{len(field)}:{field}" for field in fields)
