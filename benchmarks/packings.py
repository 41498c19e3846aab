"""Packings of ids beside one another, which is how one was chosen.

    python -m benchmarks.packings [FOLDER] [--quick]

Layouts of ids in bytes, zstd levels and dictionary sizes, each with a dictionary trained for it on
`benchmarks.training_text` and measured on the English texts of `benchmarks.evaluation_text`: bytes per token without
header, tag and key; microseconds per passage for zstd alone, best of several runs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zstandard

from benchmarks.evaluation_text import ENGLISH, SEPARATOR, evaluation_passages
from benchmarks.training_text import download, passages
from pipeline.framing import TokenIds
from pipeline.token_cache import dictionary_of
from pipeline.tokenizers.tiktoken_bpe import load_tiktoken

ENCODING = "o200k_base"
SIZES_KIB = (0, 32, 64, 128, 256)
LEVELS = (1, 2, 3, 5, 7, 9, 12)
TIMED = 150

FRAMES = {
    "format": zstandard.FORMAT_ZSTD1_MAGICLESS,
    "write_content_size": False,
    "write_checksum": False,
    "write_dict_id": False,
}


def uint32(ids: TokenIds) -> bytes:
    return ids.astype("<u4").tobytes()


def three_bytes(ids: TokenIds) -> bytes:
    return ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def planes(ids: TokenIds) -> bytes:
    return np.ascontiguousarray(ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].T).tobytes()


def two_planes(ids: TokenIds) -> bytes:
    columns = ids.astype("<u4").view(np.uint8).reshape(-1, 4)
    return columns[:, :2].tobytes() + columns[:, 2].tobytes()


def utf16(ids: TokenIds) -> bytes:
    return dictionary_of("").words[ids].tobytes().decode("utf-32-le").encode("utf-16-le")


def ranked_utf16(ids: TokenIds) -> bytes:
    return dictionary_of(ENCODING).words[ids].tobytes().decode("utf-32-le").encode("utf-16-le")


LAYOUTS: dict[str, Callable[[TokenIds], bytes]] = {
    "uint32": uint32,
    "24 bits": three_bytes,
    "three planes": planes,
    "16 bits + plane": two_planes,
    "UTF-16": utf16,
    "UTF-16 of ranks": ranked_utf16,
}


def compare(
    layout: str, *, training: Sequence[TokenIds], english: Sequence[TokenIds], size_kib: int, level: int
) -> None:
    """Print one row."""
    pack = LAYOUTS[layout]
    content = trained(layout, training, size_kib=size_kib)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=1000, dict_size=len(content or b""), **FRAMES
    )
    dictionary = zstandard.ZstdCompressionDict(content) if content else None
    if dictionary is not None:
        dictionary.precompute_compress(compression_params=parameters)
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary)
    decompressor = zstandard.ZstdDecompressor(format=FRAMES["format"], dict_data=dictionary)
    raws = [pack(ids) for ids in english]
    frames = [compressor.compress(raw) for raw in raws]
    size = sum(map(len, frames)) / sum(ids.size for ids in english)
    encode_us = best_us(lambda: [compressor.compress(raw) for raw in raws[:TIMED]])
    bounds = [len(raw) for raw in raws]
    decode_us = best_us(lambda: [decompressor.decompress(*one) for one in zip(frames[:TIMED], bounds, strict=False)])
    print(
        f"{layout:16} {size_kib:4} KiB  level {level:2}  {size:6.3f} bytes {encode_us:7.1f} {decode_us:6.1f} µs",
        flush=True,
    )


_trained: dict[tuple[str, int], bytes] = {}


def trained(layout: str, training: Sequence[TokenIds], *, size_kib: int) -> bytes | None:
    """Return a dictionary for a layout, trained once; None of size 0."""
    if size_kib == 0:
        return None
    if (layout, size_kib) not in _trained:
        samples: list[bytes | bytearray | memoryview[int]] = [LAYOUTS[layout](ids) for ids in training]
        made = zstandard.train_dictionary(size_kib << 10, samples, k=200, d=8, f=20, accel=1, split_point=1.0)
        _trained[layout, size_kib] = made.as_bytes()
    return _trained[layout, size_kib]


def best_us(call: Callable[[], object]) -> float:
    """Return microseconds per passage, best of 15."""
    times = []
    for _ in range(15):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times) / TIMED * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="all layouts at one level, all levels of one layout")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        download(folder)
        tokenizer = load_tiktoken(ENCODING)
        training = [tokenizer.encode(text + SEPARATOR) for text in passages(folder)]
        texts = evaluation_passages(folder, shared_data=arguments.shared)
    english = [tokenizer.encode(text) for name in ENGLISH for text in texts.get(name, [])]
    for layout in LAYOUTS:
        for size_kib in (0, 64) if arguments.quick else SIZES_KIB:
            for level in (3,) if arguments.quick else LEVELS:
                compare(layout, training=training, english=english, size_kib=size_kib, level=level)
    if arguments.quick:
        for size_kib in SIZES_KIB:
            compare("UTF-16 of ranks", training=training, english=english, size_kib=size_kib, level=2)
        for level in LEVELS:
            compare("UTF-16 of ranks", training=training, english=english, size_kib=64, level=level)


if __name__ == "__main__":
    main()
