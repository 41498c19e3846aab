"""Building specs as SQL recorded them: packaged ones, those of uploaded files, those with a frame of one's own.

A spec's row never changes and its id is never given to another, so each is read once per process. What the read path
needs is loaded ahead of queries, and can be kept on disk for a start without SQL.
"""

from sqlalchemy import Connection, select

from pipeline.database import Database
from pipeline.documents.validation import shown
from pipeline.errors import ConfigurationError, ExactnessError, InvalidInput, Unavailable
from pipeline.framing import parse_frame
from pipeline.services.spec_copies import SpecCopies
from pipeline.tokenizers import (
    RecordedSpec,
    TokenSpec,
    check_golden,
    is_packaged,
    known_encodings,
    load_recorded,
    load_spec,
    parse_golden,
    prepared_spec,
)
from pipeline.tokenizers.tables import SpecRow, SpecTokenizerRow, TokenizerFileRow


class SpecLoader:
    """Loads specs for one process. Thread-safe."""

    def __init__(self, database: Database, *, copies: SpecCopies | None = None) -> None:
        """Remember where.

        Args:
            database: Where specs are recorded.
            copies: Keeps what was loaded, for a start without SQL; None for nothing.
        """
        self._database = database
        self._copies = copies or SpecCopies(None)
        self._loaded: dict[str, TokenSpec] = {}

    def load(self, spec_id: str) -> TokenSpec:
        """Return a spec by its id; the first time SQL is asked how it was recorded.

        Raises:
            InvalidInput: It is neither recorded nor packaged.
            ExactnessError: This process computes other ids than were recorded.
            Unavailable: The database did not answer.
        """
        if (ready := self._loaded.get(spec_id)) is not None:
            return ready
        recorded = self._read(spec_id)
        spec = _packaged(spec_id) if recorded is None else self._build(recorded)
        self._loaded[spec_id] = spec
        return spec

    def prepare(self, spec_id: str, *, fingerprint: str) -> TokenSpec:
        """Load the spec that entries were written with, from the copies while SQL is away.

        Raises:
            ExactnessError: This process computes other ids.
            InvalidInput: There is no such spec.
            Unavailable: Neither SQL nor a copy has it.
        """
        if (ready := prepared_spec(fingerprint)) is not None:
            return ready
        try:
            recorded = self._read(spec_id)
        except Unavailable:
            recorded = self._copies.read(fingerprint)
            if recorded is None and not is_packaged(spec_id):
                raise
        spec = _packaged(spec_id) if recorded is None else self._build(recorded)
        if spec.fingerprint != fingerprint:
            raise ExactnessError(
                f"spec {spec_id} is recorded as {fingerprint}, but this process computes {spec.fingerprint}"
            )
        return spec

    def check(self, spec_id: str) -> None:
        """Compare a spec's golden ids with those packaged or recorded; SQL is asked only for what is not packaged.

        Raises:
            ExactnessError: This process computes other ids.
            InvalidInput: There is no such spec.
            Unavailable: The database did not answer.
        """
        if is_packaged(spec_id):
            check_golden(load_spec(spec_id))
        else:
            self.load(spec_id)

    def _read(self, spec_id: str) -> RecordedSpec | None:
        with self._database.read() as connection:
            return find_recorded(connection, spec_id)

    def _build(self, recorded: RecordedSpec) -> TokenSpec:
        def read_tokenizer(sha256: str) -> bytes:
            content = self._copies.tokenizer(sha256)
            return self._read_tokenizer(sha256) if content is None else content

        spec = load_recorded(recorded, read_tokenizer=read_tokenizer)
        self._copies.write(recorded, read_tokenizer=self._read_tokenizer)
        return spec

    def _read_tokenizer(self, sha256: str) -> bytes:
        with self._database.read() as connection:
            statement = select(TokenizerFileRow.content).where(TokenizerFileRow.sha256 == sha256)
            content = connection.execute(statement).scalar_one_or_none()
        if content is None:
            raise ConfigurationError(f"the tokenizer.json with SHA-256 {sha256} is not in the database any more")
        return bytes(content)


def find_recorded(connection: Connection, spec_id: str) -> RecordedSpec | None:
    """Return how a spec was recorded, None if it was not."""
    row = connection.execute(
        select(SpecRow, SpecTokenizerRow.sha256)
        .outerjoin(SpecTokenizerRow, SpecTokenizerRow.spec_id == SpecRow.id)
        .where(SpecRow.id == spec_id)
    ).first()
    if row is None:
        return None
    return RecordedSpec(
        spec_id=row.id,
        encoding=row.encoding,
        frame=parse_frame(row.frame),
        fingerprint=row.fingerprint,
        golden=parse_golden(row.golden),
        tokenizer_sha256=row.sha256,
    )


def _packaged(spec_id: str) -> TokenSpec:
    """Return a packaged spec.

    Raises:
        InvalidInput: There is none of that name; the message says how to add one.
    """
    if is_packaged(spec_id) or "/" not in spec_id or spec_id.partition("/")[0] in known_encodings():
        return load_spec(spec_id)  # which says what is wrong with the name
    raise InvalidInput(
        f"there is no spec {shown(spec_id)}: see `forefill spec ls`, or add it with `forefill spec add`; "
        f"encodings that need no tokenizer file: {', '.join(known_encodings())}",
        item="spec",
    )
