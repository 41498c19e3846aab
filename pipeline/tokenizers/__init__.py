"""Tokenizers, token specs and their fingerprints, and the encoding of a prompt's pieces."""

from pipeline.tokenizers.fingerprints import CANONICAL_FORM_VERSION, spec_fingerprint
from pipeline.tokenizers.golden_ids import Golden, compute_golden, golden_texts, packaged_golden, parse_golden
from pipeline.tokenizers.pieces import EncodedPassage, encode_header, encode_passage, encode_prefix, question_ids
from pipeline.tokenizers.registry import load_spec
from pipeline.tokenizers.spec import Neighbour, TokenSpec, build_spec, check_golden, common_ids
from pipeline.tokenizers.tiktoken_bpe import TiktokenTokenizer, load_tiktoken
from pipeline.tokenizers.tokenizer import Tokenizer, TokenizerIdentity
from pipeline.tokenizers.vocabulary import VocabularyDefinition, known_encodings, load_ranks, vocabulary_definition

__all__ = [
    "CANONICAL_FORM_VERSION",
    "EncodedPassage",
    "Golden",
    "Neighbour",
    "TiktokenTokenizer",
    "TokenSpec",
    "Tokenizer",
    "TokenizerIdentity",
    "VocabularyDefinition",
    "build_spec",
    "check_golden",
    "common_ids",
    "compute_golden",
    "encode_header",
    "encode_passage",
    "encode_prefix",
    "golden_texts",
    "known_encodings",
    "load_ranks",
    "load_spec",
    "load_tiktoken",
    "packaged_golden",
    "parse_golden",
    "question_ids",
    "spec_fingerprint",
    "vocabulary_definition",
]
