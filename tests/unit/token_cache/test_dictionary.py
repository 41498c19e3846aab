"""A dictionary changes sizes, never ids."""

import threading

import numpy as np
import pytest

from pipeline.errors import ConfigurationError
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.token_cache import Entry, decode_entry, dictionary, dictionary_of, encode_entry, entry_key
from pipeline.token_cache.dictionary import SURROGATES, TABLE_IDS, dictionary_numbered
from pipeline.tokenizers import load_spec
from tests.support.entries import FINGERPRINT, passage_key_of

KEY = entry_key(FINGERPRINT, passage_key_of("a"))
PROSE = """The committee met on Tuesday, and after a long discussion it was agreed that nothing more could be done
before the summer. Nobody in the village had expected anything else; the bridge, which was built when their
grandparents were young, had been closed twice already, and each time the repairs had taken longer than anybody
thought they would. Some of the older people said that a ferry would be cheaper. Others wanted to write to the
newspaper again, although the last letter had only been answered with a polite note of three lines. In the end they
decided to ask the school to paint a new sign, so that visitors would at least know how far they had to walk, and to
meet again as soon as there was any news."""
ALL = ["", "o200k_base", "cl100k_base"]


@pytest.mark.parametrize("encoding", ALL)
def test_every_id_has_one_word_and_every_word_its_id(encoding: str) -> None:
    chosen = dictionary_of(encoding)
    ids = np.arange(TABLE_IDS, dtype=np.uint32)
    assert np.array_equal(chosen.ids[chosen.words], ids)
    assert np.unique(chosen.words).size == ids.size
    assert not np.isin(chosen.words, SURROGATES).any()


@pytest.mark.parametrize("encoding", ALL)
def test_an_entrys_number_finds_the_dictionary_it_was_packed_with(encoding: str) -> None:
    chosen = dictionary_of(encoding)
    assert dictionary_numbered(chosen.number) is chosen


def test_a_number_of_a_later_version_is_nothing() -> None:
    assert dictionary_numbered(200) is None


def test_harmony_shares_the_dictionary_and_an_unknown_encoding_has_the_one_that_learned_nothing() -> None:
    assert dictionary_of("o200k_harmony") is dictionary_of("o200k_base")
    assert dictionary_of("somebody-elses").number == 0


@pytest.mark.parametrize("spec_id", ["o200k_base/plain", "cl100k_base/plain"])
def test_prose_takes_at_most_nine_tenths_with_the_dictionary_of_its_spec(spec_id: str) -> None:
    spec = load_spec(spec_id)
    chosen = dictionary_for(spec.fingerprint)
    entry = Entry(spec.tokenizer.encode(PROSE), right_safe=True)
    sizes = [len(encode_entry(KEY, entry, dictionary=one)) for one in (chosen, dictionary_of(""))]
    assert chosen.number > 0
    assert sizes[0] <= 0.9 * sizes[1]


def test_a_spec_that_this_process_has_not_built_is_packed_without() -> None:
    assert dictionary_for("0" * 32).number == 0


def test_a_file_with_other_bytes_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(dictionary, "FOLDER", tmp_path)
    dictionary._load.cache_clear()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        dictionary_of("o200k_base")
    (dictionary.FOLDER / "o200k_base.dict").write_bytes(b"other")
    with pytest.raises(ConfigurationError, match="is not the packing dictionary"):
        dictionary_of("o200k_base")


def test_threads_pack_and_unpack_at_once() -> None:
    chosen, wrong = dictionary_of("o200k_base"), list[object]()

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(200):
            entry = Entry(generator.zipf(1.3, 400).clip(1, 199_999).astype(np.uint32), right_safe=True)
            if decode_entry(KEY, encode_entry(KEY, entry, dictionary=chosen)) != entry:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
