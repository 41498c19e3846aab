"""Corpora: listing, reading, creating, changing and dropping them."""

from fastapi import APIRouter, Response

from api.bodies import JsonRoute, json_answer
from api.dependencies import Context, CurrentCaller
from api.paging import After, Limit
from api.paths import CorpusName, NewCorpusName
from api.schemas import CorpusBody
from pipeline.documents.corpora import get_corpus
from pipeline.services.corpus_removal import drop_corpus
from pipeline.services.corpus_settings import CorpusReport, describe_corpora, describe_corpus, put_corpus
from pipeline.services.presenting import JsonObject, corpus_object, page_object

router = APIRouter(prefix="/v1/corpora", tags=["corpora"], route_class=JsonRoute)


@router.get("")
async def list_all(context: Context, caller: CurrentCaller, after: After, limit: Limit = 100) -> Response:
    """List corpora by name."""
    reports = await context.select(
        lambda connection: describe_corpora(connection, after=after, limit=limit, names=caller.corpora)
    )
    return json_answer(page_object("corpora", [_present(report) for report in reports], limit=limit, key="name"))


@router.get("/{corpus}")
async def show(context: Context, name: CorpusName) -> Response:
    """Show one corpus."""
    report = await context.select(lambda connection: describe_corpus(connection, get_corpus(connection, name)))
    return json_answer(_present(report))


@router.put("/{corpus}")
async def put(context: Context, name: NewCorpusName, body: CorpusBody) -> Response:
    """Create a corpus (201), or change an existing one (200)."""
    change = body.to_change(name)
    report, created = await context.write(lambda: put_corpus(context.database, name, change, defaults=context.defaults))
    await context.read_path.configuration.refresh()
    return json_answer(_present(report), status=201 if created else 200)


@router.delete("/{corpus}", status_code=202)
async def drop(context: Context, name: CorpusName) -> Response:
    """Drop a corpus: gone at once for callers, its rows and points go in the background."""
    await context.write(lambda: drop_corpus(context.database, name))
    context.nudger.nudge()
    await context.read_path.configuration.refresh()
    return json_answer({"name": name, "dropped": True}, status=202)


def _present(report: CorpusReport) -> JsonObject:
    return corpus_object(report.corpus, spec_id=report.spec_id, next_run_at=report.next_run_at)
