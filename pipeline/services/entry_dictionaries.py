"""Which dictionary packs the entries of a spec: the cache knows fingerprints only, the registry knows specs."""

from pipeline.token_cache import Dictionary, dictionary_of
from pipeline.tokenizers import prepared_encoding


def dictionary_for(fingerprint: str) -> Dictionary:
    """Return the dictionary of a spec's encoding, or the one that learned nothing.

    Who writes entries has tokenized them, so this process has built the spec. Had it not, its entries would take more
    room and be read just the same.
    """
    return dictionary_of(prepared_encoding(fingerprint) or "")
