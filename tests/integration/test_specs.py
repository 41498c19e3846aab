"""Specs in SQL: added once validated, loaded by every process as they were recorded, and never another under a name."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from pipeline.context import ValidationReport
from pipeline.database import Database, create_database_engine
from pipeline.errors import ConfigurationError, Conflict, ExactnessError, InvalidInput, Unavailable
from pipeline.framing import packaged_frame
from pipeline.services import spec_adding
from pipeline.services.configuration import load_configuration
from pipeline.services.corpus_settings import CorpusChange, put_corpus
from pipeline.services.ingestion import CorpusDefaults
from pipeline.services.spec_adding import AddedSpec, NewSpec, add_spec, sample_passages
from pipeline.services.spec_copies import SpecCopies
from pipeline.services.spec_loading import SpecLoader
from pipeline.services.specs import list_specs
from pipeline.tokenizers import HfTokenizer, encode_passage, load_hf, load_spec, prepared_spec, registry
from pipeline.tokenizers.tables import SpecRow, SpecTokenizerRow, TokenizerFileRow
from tests.support.write_path import CORPUS, InMemoryWorker, ingestion, source
from tests.unit.tokenizers.hf_files import added, tokenizer_json, with_added

NEW = NewSpec(tokenizer=tokenizer_json("small"), frame="chatml", name="small")


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins like a process that has built nothing."""
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_recorded", "_files"):
        monkeypatch.setattr(registry, name, {})


def add(database: Database, new: NewSpec = NEW, **options: Any) -> AddedSpec:
    return add_spec(database, new, **{"contexts": 1_000, **options})


def count(database: Database, row: type[SpecRow | TokenizerFileRow | SpecTokenizerRow]) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(row)).scalar_one()


def test_an_added_spec_is_loaded_by_other_processes_as_it_was_recorded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = add(database)
    assert (answer.spec_id, answer.created) == ("small/chatml", True)
    assert answer.report is not None
    assert (answer.report.contexts, answer.report.unsafe_passages) == (1_000, 0)
    first = SpecLoader(database).load("small/chatml")
    forget(monkeypatch)
    second = SpecLoader(database).load("small/chatml")
    assert second is not first
    assert second.fingerprint == first.fingerprint
    assert encode_passage(second, "text").ids.tolist() == encode_passage(first, "text").ids.tolist()
    with database.read() as connection:
        (listed,) = list_specs(connection)
    assert (listed.source, listed.frame, listed.status, listed.coverage) == ("hf", "chatml", "ready", {})


def test_adding_a_spec_again_changes_nothing_and_validates_nothing(database: Database) -> None:
    add(database)
    again = add(database)
    assert (again.created, again.report) == (False, None)
    assert count(database, SpecRow) == count(database, TokenizerFileRow) == 1


def test_several_frames_share_one_stored_file_and_one_tokenizer(database: Database) -> None:
    own = replace(packaged_frame("chatml"), name="own", header="Source {n}\n").canonical_json()
    add(database)
    answer = add(database, replace(NEW, frame=own))
    assert answer.spec_id == "small/own"
    assert (count(database, SpecTokenizerRow), count(database, TokenizerFileRow)) == (2, 1)
    loader = SpecLoader(database)
    assert loader.load("small/own").frame.header == "Source {n}\n"
    assert loader.load("small/own").tokenizer is loader.load("small/chatml").tokenizer


def test_a_frame_of_ones_own_goes_with_a_packaged_encoding(database: Database) -> None:
    own = replace(packaged_frame("plain"), name="own", header="Source {n}\n").canonical_json()
    add(database, NewSpec(encoding="cl100k_base", frame=own))
    spec = SpecLoader(database).load("cl100k_base/own")
    assert spec.fingerprint != load_spec("cl100k_base/plain").fingerprint
    assert count(database, TokenizerFileRow) == 0


def test_a_name_is_never_given_to_other_ids_and_ids_have_one_name(database: Database) -> None:
    add(database)
    other = tokenizer_json("small", with_added(added("<|more|>", 302)))
    with pytest.raises(Conflict, match=r"spec small/chatml is recorded with fingerprint"):
        add(database, replace(NEW, tokenizer=other))
    with pytest.raises(Conflict, match=r"the ids of spec twin/chatml are recorded as small/chatml already"):
        add(database, replace(NEW, name="twin"))
    assert count(database, SpecRow) == 1


def test_of_two_that_add_one_spec_at_once_one_records_it(database: Database) -> None:
    answers: list[AddedSpec] = []
    threads = [threading.Thread(target=lambda: answers.append(add(database))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.created for answer in answers) == [False, False, True]
    assert count(database, SpecRow) == count(database, TokenizerFileRow) == count(database, SpecTokenizerRow) == 1


def test_nothing_is_stored_of_a_spec_that_is_not_exact(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> ValidationReport:
        raise ExactnessError("small/chatml is not exact: example: …")

    monkeypatch.setattr(spec_adding, "validate_spec", refuse)
    with pytest.raises(InvalidInput, match="refused: small/chatml is not exact: example"):
        add(sqlite_database)
    assert count(sqlite_database, SpecRow) == count(sqlite_database, TokenizerFileRow) == 0


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (replace(NEW, frame="plain!"), "unknown frame 'plain!'; known: .*chatml"),
        (replace(NEW, frame="llama3"), r"small has no control token '<\|eot_id\|>'"),
        (replace(NEW, frame=b"{}"), "a frame is a JSON object with exactly the fields"),
        (replace(NEW, frame=b"x" * 70_000), "over 65,536 bytes"),
        (
            replace(NEW, frame=replace(packaged_frame("plain"), name="chatml").canonical_json()),
            "frame 'chatml' is a packaged one with other content",
        ),
        (replace(NEW, name="cl100k_base"), "name 'cl100k_base' is that of a packaged encoding"),
        (replace(NEW, tokenizer=b"{}"), "it has no `model`"),
        (replace(NEW, encoding="cl100k_base"), "either a packaged encoding or a tokenizer.json"),
        (replace(NEW, tokenizer=None), "either a packaged encoding or a tokenizer.json"),
        (NewSpec(encoding="r50k_base", frame="plain"), "unknown encoding 'r50k_base'"),
        (NewSpec(encoding="cl100k_base", frame="plain", name="mine"), "has its name already"),
        (NewSpec(encoding="cl100k_base", frame="chatml"), r"no control token '<\|im_end\|>'"),
        (replace(NEW, tokenizer=tokenizer_json("gpt2"), frame="plain"), "refused: small does not cut after the prefix"),
    ],
)
def test_what_is_no_spec_is_refused(sqlite_database: Database, new: NewSpec, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        add(sqlite_database, new)


def test_a_frame_that_its_models_template_contradicts_is_not_recorded(sqlite_database: Database) -> None:
    with pytest.raises(InvalidInput, match="the template writes 'Hello', the frame '<"):
        add(sqlite_database, replace(NEW, chat_template=b"Hello"))
    assert count(sqlite_database, SpecRow) == 0
    template = (
        b"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        b"{{ '<|im_start|>assistant\n' }}"
    )
    with pytest.raises(InvalidInput, match="otherwise"):
        add(sqlite_database, replace(NEW, chat_template=template.replace(b"{{ m.content }}", b"{{ m.content }}\n")))
    assert add(sqlite_database, replace(NEW, chat_template=template)).created
    with pytest.raises(InvalidInput, match="the template writes 'Hello'"):  # also of one that is there
        add(sqlite_database, replace(NEW, chat_template=b"Hello"))


def test_a_handful_of_contexts_proves_nothing(sqlite_database: Database) -> None:
    with pytest.raises(InvalidInput, match="at least 1,000 contexts"):
        add(sqlite_database, contexts=999)


def test_a_spec_without_a_name_is_called_after_its_content(sqlite_database: Database) -> None:
    answer = add(sqlite_database, replace(NEW, name=None))
    assert answer.spec_id.startswith("hf-")
    assert len(answer.spec_id) == len("hf-") + 12 + len("/chatml")


def test_passages_of_the_caller_s_corpora_are_tried(sqlite_database: Database) -> None:
    for corpus, words in (("mine", "first words"), ("theirs", "other words")):
        ingestion(sqlite_database).put(corpus, [source("d", words)])
    with sqlite_database.read() as connection:
        assert sorted(sample_passages(connection)) == ["first words", "other words"]
        assert sample_passages(connection, corpora=["mine"]) == ["first words"]
        assert sample_passages(connection, corpora=[]) == []


def test_an_unknown_spec_says_how_to_add_one(sqlite_database: Database) -> None:
    loader = SpecLoader(sqlite_database)
    with pytest.raises(InvalidInput, match=r"there is no spec 'smollm3/chatml': .*forefill spec add"):
        loader.load("smollm3/chatml")
    with pytest.raises(InvalidInput, match="unknown frame 'fancy'"):
        loader.load("cl100k_base/fancy")
    with pytest.raises(InvalidInput, match="not like 'o200k_base/plain'"):
        loader.load("o200k_base")


def test_a_process_that_computes_other_ids_refuses_the_spec(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sqlite_database)
    forget(monkeypatch)
    with sqlite_database.write() as connection:
        connection.execute(update(SpecRow).values(fingerprint="0" * 32))
    with pytest.raises(ExactnessError, match="is recorded with fingerprint 0000"):
        SpecLoader(sqlite_database).load("small/chatml")


def test_a_stored_file_that_was_tampered_with_is_refused(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sqlite_database)
    forget(monkeypatch)
    with sqlite_database.write() as connection:
        connection.execute(update(TokenizerFileRow).values(content=tokenizer_json("gpt2")))
    with pytest.raises(ConfigurationError, match="no longer has SHA-256"):
        SpecLoader(sqlite_database).load("small/chatml")


def test_a_burst_of_threads_builds_a_recorded_spec_once(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sqlite_database)
    built: list[str] = []

    def counted(content: bytes, *, name: str) -> HfTokenizer:
        built.append(name)
        return load_hf(content, name=name)

    monkeypatch.setattr(registry, "load_hf", counted)
    loader = SpecLoader(sqlite_database)
    threads = [threading.Thread(target=loader.load, args=["small/chatml"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == ["small"]


@pytest.fixture
def gone() -> Iterator[Database]:
    """A database that does not answer."""
    database = Database(create_database_engine("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=1"))
    yield database
    database.close()


def test_a_start_without_sql_builds_specs_of_their_copies(
    sqlite_database: Database, gone: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sqlite_database)
    folder = tmp_path / "copies"
    fingerprint = SpecLoader(sqlite_database, copies=SpecCopies(folder)).load("small/chatml").fingerprint
    forget(monkeypatch)
    assert prepared_spec(fingerprint) is None
    spec = SpecLoader(gone, copies=SpecCopies(folder)).prepare("small/chatml", fingerprint=fingerprint)
    assert spec.fingerprint == fingerprint
    assert prepared_spec(fingerprint) is spec
    packaged = load_spec("cl100k_base/plain")
    assert SpecLoader(gone).prepare("cl100k_base/plain", fingerprint=packaged.fingerprint) is packaged


def test_copies_that_were_tampered_with_or_lost_are_not_believed(
    sqlite_database: Database, gone: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sqlite_database)
    folder = tmp_path / "copies"
    fingerprint = SpecLoader(sqlite_database, copies=SpecCopies(folder)).load("small/chatml").fingerprint
    (file,) = folder.glob("*.tokenizer.json")
    (copy,) = folder.glob("*.spec.json")
    forget(monkeypatch)
    file.write_bytes(tokenizer_json("gpt2"))
    with pytest.raises(ConfigurationError, match="no longer has SHA-256"):
        SpecLoader(gone, copies=SpecCopies(folder)).prepare("small/chatml", fingerprint=fingerprint)
    copy.write_bytes(copy.read_bytes().replace(b"below", b"above"))
    file.write_bytes(tokenizer_json("small"))
    with pytest.raises(ExactnessError, match="is recorded with fingerprint"):
        SpecLoader(gone, copies=SpecCopies(folder)).prepare("small/chatml", fingerprint=fingerprint)
    copy.write_bytes(b"{")
    with pytest.raises(Unavailable):
        SpecLoader(gone, copies=SpecCopies(folder)).prepare("small/chatml", fingerprint=fingerprint)


def test_a_corpus_with_an_added_spec_is_filled_and_configured(database: Database) -> None:
    add(database)
    loader = SpecLoader(database)
    defaults = CorpusDefaults(
        spec=lambda: loader.load("o200k_base/plain"), splitter=ingestion(database)._defaults.splitter, embedder="named"
    )
    put_corpus(database, CORPUS, CorpusChange(spec="small/chatml"), defaults=defaults)
    ingestion(database).put(CORPUS, [source("a", "Some <|im_end|> text.")])
    assert InMemoryWorker(database).run_all() == ["succeeded"]
    view = load_configuration(database).corpora[CORPUS]
    spec = loader.prepare(view.spec_id, fingerprint=view.fingerprint)
    assert spec.spec_id == "small/chatml"
    with database.read() as connection:
        (listed,) = list_specs(connection, only="small/chatml")
        assert connection.execute(text("SELECT count(*) FROM ledger")).scalar_one() == 1
    assert (listed.status, listed.coverage) == ("active", {CORPUS: 1.0})
