"""Checks of what was promised for corpora: same ids, same vectors, same cuts as when they were filled."""

from collections.abc import Iterator

from sqlalchemy import select

from pipeline.database import Database
from pipeline.documents.caching import CachingOff, list_caching_off
from pipeline.documents.corpora import Corpus, list_corpora
from pipeline.documents.splitting import Splitter
from pipeline.documents.states import DocumentState
from pipeline.errors import ForefillError, InvalidInput
from pipeline.retrieval.embedders import embedder_name
from pipeline.services.diagnosis.findings import Finding
from pipeline.services.inspection import Coverage, count_states, list_coverage
from pipeline.services.spec_loading import SpecLoader
from pipeline.services.time_zones import load_zone
from pipeline.settings import Settings
from pipeline.tokenizers.tables import SpecRow


def check(settings: Settings, database: Database) -> Iterator[Finding]:
    """Yield whether specs, embedder and splitter are still what corpora were filled with."""
    yield from _check_specs(settings, database)
    embedder = embedder_name(settings)
    with database.read() as connection:
        found = [
            (corpus, count_states(connection, corpus.pk)[DocumentState.DEAD]) for corpus in list_corpora(connection)
        ]
        coverage = list_coverage(connection)
        caching_off = list_caching_off(connection)
    for corpus, dead in found:
        problems = [
            *_check_embedder(corpus, embedder=embedder),
            *_check_splitter(corpus),
            *_check_timezone(corpus),
            *_check_caching(corpus, caching_off),
            *_check_dead(corpus, dead=dead),
            *_check_coverage(corpus, [entry for entry in coverage if entry.corpus == corpus.name]),
        ]
        yield from problems or [Finding.ok(f"corpus {corpus.name}", "embedder, splitter and specs fit")]


def _check_specs(settings: Settings, database: Database) -> Iterator[Finding]:
    with database.read() as connection:
        recorded = connection.execute(select(SpecRow.id)).scalars().all()
    specs = SpecLoader(database)
    for spec_id in sorted({settings.spec, *recorded}):
        subject = f"spec {spec_id}"
        try:
            specs.load(spec_id)
            specs.check(spec_id)
        except ForefillError as error:
            yield Finding.fail(subject, str(error), remedy="install the versions of the lock file")
        else:
            yield Finding.ok(subject, "this installation computes the recorded ids")


def _check_embedder(corpus: Corpus, *, embedder: str) -> Iterator[Finding]:
    if corpus.embedder != embedder:
        yield Finding.fail(
            f"corpus {corpus.name}",
            f"was embedded with {corpus.embedder}, but {embedder} is configured: its questions are refused",
            remedy="configure that embedder again, or ingest into a new corpus",
        )


def _check_splitter(corpus: Corpus) -> Iterator[Finding]:
    try:
        installed = Splitter.from_identity(corpus.splitter).identity
    except InvalidInput as error:
        yield Finding.fail(f"corpus {corpus.name}", str(error), remedy="set its splitter, or ingest into a new corpus")
        return
    if corpus.splitter != installed:
        yield Finding.warn(
            f"corpus {corpus.name}",
            f"was cut by {corpus.splitter}, what changes from now on is cut by {installed}",
            remedy="install that version again, or ingest into a new corpus",
        )


def _check_timezone(corpus: Corpus) -> Iterator[Finding]:
    try:
        load_zone(corpus.timezone)
    except InvalidInput as error:
        yield Finding.fail(
            f"corpus {corpus.name}",
            f"{error}: its schedule is not followed",
            remedy=f"run `forefill corpus set {corpus.name} --timezone NAME`, for instance Europe/Berlin or UTC",
        )


def _check_caching(corpus: Corpus, caching_off: list[CachingOff]) -> Iterator[Finding]:
    for off in caching_off:
        if off.corpus == corpus.name:
            yield Finding.fail(
                f"corpus {corpus.name}",
                f"caching is off under {off.spec_id}, queries tokenize: {off.reason}",
                remedy=f"find out why, then `forefill spec enable {off.spec_id} --corpus {corpus.name}`",
            )


def _check_dead(corpus: Corpus, *, dead: int) -> Iterator[Finding]:
    if dead:
        yield Finding.warn(
            f"corpus {corpus.name}",
            f"{dead:,} documents are dead: search finds an older generation of them, or nothing",
            remedy="see why with `forefill runs errors`, correct them and ingest them again",
        )


def _check_coverage(corpus: Corpus, coverage: list[Coverage]) -> Iterator[Finding]:
    for entry in coverage:
        if entry.share is None:
            yield Finding.warn(
                f"corpus {corpus.name}",
                f"coverage under {entry.spec} is unknown: the cache has evicted entries since it was verified",
                remedy=f"give the cache more memory, then run `forefill verify --corpus {corpus.name} --repair`",
            )
        elif entry.covered < entry.passages:
            yield Finding.warn(
                f"corpus {corpus.name}",
                f"{entry.passages - entry.covered:,} passages have no entry under {entry.spec}: queries tokenize them",
                remedy="see with `forefill runs ls --unfinished` whether a backfill is at it; else "
                f"run `forefill retokenize --corpus {corpus.name} --only-changed`",
            )
