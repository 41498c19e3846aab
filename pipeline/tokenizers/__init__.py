"""Tokenizers, token specs and their fingerprints, and the encoding of a prompt's pieces."""

from pipeline.tokenizers.fingerprints import CANONICAL_FORM_VERSION, spec_fingerprint
from pipeline.tokenizers.gigatoken import GigatokenTwin, load_twin
from pipeline.tokenizers.golden_ids import Golden, compute_golden, golden_texts, packaged_golden, parse_golden
from pipeline.tokenizers.hf import HfTokenizer, load_hf, require_same_as_file
from pipeline.tokenizers.pieces import (
    EncodedPassage,
    EncodedPassages,
    encode_header,
    encode_passage,
    encode_passages,
    encode_prefix,
    question_ids,
)
from pipeline.tokenizers.registry import (
    RecordedSpec,
    is_packaged,
    load_recorded,
    load_spec,
    prepared_encoding,
    prepared_spec,
    use_twins,
)
from pipeline.tokenizers.spec import Neighbour, TokenSpec, build_spec, check_golden, common_ids
from pipeline.tokenizers.tiktoken_bpe import TiktokenTokenizer, load_tiktoken
from pipeline.tokenizers.tokenizer import Tokenizer, TokenizerIdentity
from pipeline.tokenizers.tokenizer_json import MAX_TOKENIZER_BYTES, parse_tokenizer_json
from pipeline.tokenizers.twin_texts import twin_texts
from pipeline.tokenizers.vocabulary import VocabularyDefinition, known_encodings, load_ranks, vocabulary_definition

__all__ = [
    "CANONICAL_FORM_VERSION",
    "MAX_TOKENIZER_BYTES",
    "EncodedPassage",
    "EncodedPassages",
    "GigatokenTwin",
    "Golden",
    "HfTokenizer",
    "Neighbour",
    "RecordedSpec",
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
    "encode_passages",
    "encode_prefix",
    "golden_texts",
    "is_packaged",
    "known_encodings",
    "load_hf",
    "load_ranks",
    "load_recorded",
    "load_spec",
    "load_tiktoken",
    "load_twin",
    "packaged_golden",
    "parse_golden",
    "parse_tokenizer_json",
    "prepared_encoding",
    "prepared_spec",
    "question_ids",
    "require_same_as_file",
    "spec_fingerprint",
    "twin_texts",
    "use_twins",
    "vocabulary_definition",
]
