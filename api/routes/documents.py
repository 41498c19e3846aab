"""Documents: accepting changes and deletions, and showing what became of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Request, Response

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.paging import After, Limit
from api.paths import CorpusName, DocumentId, NewCorpusName
from api.schemas import DocumentsBody, IdsBody
from pipeline.documents.corpora import get_corpus
from pipeline.documents.validation import DocumentLimits
from pipeline.errors import InvalidInput
from pipeline.services.ingestion import Idempotency, IngestAnswer
from pipeline.services.inspection import get_document, list_documents
from pipeline.services.presenting import delete_object, document_object, ingest_object, page_object

router = APIRouter(prefix="/v1/corpora/{corpus}/documents", tags=["documents"], route_class=JsonRoute)

_MAX_KEY_CHARACTERS = 255


async def _idempotency(
    request: Request,
    caller: CurrentCaller,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description="Equal keys mean the same request.")] = None,
) -> Idempotency | None:
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise InvalidInput(
            f"Idempotency-Key must be 1 to {_MAX_KEY_CHARACTERS} printable ASCII characters", item="Idempotency-Key"
        )
    return Idempotency(principal=caller.principal, key=key, body=await request.body())


Repeat = Annotated[Idempotency | None, Depends(_idempotency)]


@router.put("", status_code=202)
async def put(context: Context, name: NewCorpusName, body: DocumentsBody, idempotency: Repeat) -> Response:
    """Set documents, all or none; they are served once their run has finished. Makes the corpus if there is none."""
    settings = context.settings

    def accept() -> IngestAnswer:
        documents = body.to_documents(
            max_documents=settings.max_request_documents, limits=DocumentLimits.from_settings(settings)
        )
        return context.ingestion.put(name, documents, idempotency=idempotency)

    return json_answer(ingest_object(await context.write(accept)), status=202)


@router.delete("", status_code=202)
@router.post("/delete", status_code=202)
async def delete(context: Context, name: CorpusName, body: IdsBody, idempotency: Repeat) -> Response:
    """Delete documents; ids that do not exist are counted."""
    ids = body.to_ids(max_documents=context.settings.max_request_documents)
    answer = await context.write(lambda: context.ingestion.delete(name, ids, idempotency=idempotency))
    return json_answer(delete_object(answer), status=202)


@router.get("")
async def list_all(
    context: Context,
    name: CorpusName,
    after: After,
    limit: Limit = 100,
    state: Literal["pending", "served", "stale", "dead"] | None = None,
) -> Response:
    """List documents by id."""
    presence = context.presence()
    reports = await context.select(
        lambda connection: list_documents(
            connection, get_corpus(connection, name), after=after, limit=limit, state=state, is_present=presence
        )
    )
    documents = [document_object(report) for report in reports]
    return json_answer(page_object("documents", documents, limit=limit, key="id"))


@router.get("/{document_id:path}")
async def show(context: Context, name: CorpusName, document_id: DocumentId) -> Response:
    """Show one document; `cached` says what the cache holds now."""
    presence = context.presence()
    report = await context.select(
        lambda connection: get_document(connection, get_corpus(connection, name), document_id, is_present=presence)
    )
    return json_answer(document_object(report))
