"""The token cache: key grammar, codec, L1 in memory, the shared cache's two sides, and the read path's tiered face.

Redis only caches. An entry is immutable and named by what it is the entry of, so losing it, or writing it twice, is
harmless; reading one that is not what its name says is a counted miss.
"""

from pipeline.token_cache.circuit import Circuit
from pipeline.token_cache.codec import MAX_IDS, Entry, decode_entry, encode_entry, joined_entries
from pipeline.token_cache.dictionary import Dictionary, dictionary_of
from pipeline.token_cache.entries import Entries
from pipeline.token_cache.keys import EPOCH_KEY, EntryName, entry_key, parse_entry_key
from pipeline.token_cache.l1 import L1Cache
from pipeline.token_cache.marks import KeyMismatchError
from pipeline.token_cache.memory import MemoryStore, MemoryTokenReader, MemoryTokenWriter
from pipeline.token_cache.redis_cache import RedisTokenReader, RedisTokenWriter
from pipeline.token_cache.shared_stats import SharedStatistics
from pipeline.token_cache.stats import LookupStatistics, LookupStats
from pipeline.token_cache.stores import (
    CacheServer,
    Found,
    MissReason,
    PassageEntry,
    TokenReader,
    TokenWriter,
)
from pipeline.token_cache.tiered import ComputeEntries, Lookup, Source, TokenCache

__all__ = [
    "EPOCH_KEY",
    "MAX_IDS",
    "CacheServer",
    "Circuit",
    "ComputeEntries",
    "Dictionary",
    "Entries",
    "Entry",
    "EntryName",
    "Found",
    "KeyMismatchError",
    "L1Cache",
    "Lookup",
    "LookupStatistics",
    "LookupStats",
    "MemoryStore",
    "MemoryTokenReader",
    "MemoryTokenWriter",
    "MissReason",
    "PassageEntry",
    "RedisTokenReader",
    "RedisTokenWriter",
    "SharedStatistics",
    "Source",
    "TokenCache",
    "TokenReader",
    "TokenWriter",
    "decode_entry",
    "dictionary_of",
    "encode_entry",
    "entry_key",
    "joined_entries",
    "parse_entry_key",
]
