"""Trains the dictionaries that the token cache ships: `python -m benchmarks.train_dictionary [FOLDER]`.

Downloads the pinned Debian packages of `benchmarks.training_text` into the folder (needs `apt-get` and `dpkg-deb`),
tokenizes them, and writes `pipeline/token_cache/dictionaries/*.dict`. A dictionary's bytes are pinned by SHA-256 in
`pipeline/token_cache/dictionary.py`, and entries name it by number: **a retrained dictionary needs a new number**,
or every entry packed with the old one is lost. The same packages and the same zstd give the same bytes.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import zstandard

from benchmarks.training_text import download, passages
from pipeline.framing import TokenIds
from pipeline.token_cache.dictionary import FOLDER, FREQUENT_IDS, ranked_words
from pipeline.tokenizers.tiktoken_bpe import load_tiktoken

ENCODINGS = ("o200k_base", "cl100k_base")
SEPARATOR = "\n\n"
DICTIONARY_BYTES = 64 * 1024


def train(samples: list[TokenIds]) -> bytes:
    """Return a dictionary file: the most frequent ids, then what zstd learned from the samples recoded by them."""
    ids, counts = np.unique(np.concatenate(samples), return_counts=True)
    frequent = ids[np.lexsort((ids, -counts))][:FREQUENT_IDS].astype("<u4")
    words = ranked_words(frequent)
    recoded: list[bytes | bytearray | memoryview[int]]
    recoded = [words[sample].tobytes().decode("utf-32-le").encode("utf-16-le") for sample in samples]
    trained = zstandard.train_dictionary(DICTIONARY_BYTES, recoded, k=200, d=8, f=20, accel=1, split_point=1.0, level=3)
    return frequent.tobytes() + trained.as_bytes()


def main(folder: Path) -> None:
    download(folder)
    texts = list(passages(folder))
    print(f"{len(texts)} passages, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB")
    for encoding in ENCODINGS:
        tokenizer = load_tiktoken(encoding)
        content = train([tokenizer.encode(text + SEPARATOR) for text in texts])
        (FOLDER / f"{encoding}.dict").write_bytes(content)
        print(f"{encoding}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
