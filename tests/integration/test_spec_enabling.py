"""Enabling caching again, as operators and clients do it; and where it shows that it is off."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.database import Database, create_database_engine
from pipeline.documents.caching import disable_caching
from pipeline.documents.corpora import get_corpus
from pipeline.documents.passages import passage_key
from pipeline.factory import open_token_writer
from pipeline.token_cache import Entry
from pipeline.tokenizers import encode_passage, load_spec
from tests.support.api_world import ApiWorld, open_api_world
from tests.support.commands import Commands
from tests.support.polling import eventually
from tests.unit.tokenizers.reference import official

SPEC = "o200k_base/plain"
TEXT = "Zebras have stripes."
ENABLE = f"/v1/specs/{SPEC}/enable"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    with open_api_world(tmp_path_factory.mktemp("enabling")) as started:
        yield started


def spoil(world: ApiWorld, text: str) -> str:
    """Put an entry of another text under the key of `TEXT`, with a valid checksum; return the key."""
    piece = encode_passage(load_spec(SPEC), text)
    entry = Entry(ids=piece.ids, right_safe=piece.right_safe)
    with closing(open_token_writer(world.settings)) as cache:
        cache.write(load_spec(SPEC).fingerprint, [(passage_key(TEXT), entry)])
    return passage_key(TEXT).hex()


def ask(world: ApiWorld, corpus: str) -> tuple[str, set[str]]:
    """Ask; return the text and its sources, having compared the ids with tiktoken's."""
    answer = world.retrieve(corpus, "Which have stripes?", include_text=True)
    assert answer["token_ids"] == official("o200k_base").encode_ordinary(answer["prompt_text"])
    return answer["prompt_text"], {passage["source"] for passage in answer["passages"]}


def test_a_wrong_entry_switches_caching_off_everywhere_until_it_was_verified_and_enabled(world: ApiWorld) -> None:
    world.serve("zebras", {"a": TEXT})
    key = spoil(world, "Zebras are wrong.")
    right, sources = ask(world, "zebras")
    assert TEXT in right
    assert sources == {"off"}

    def shown() -> dict[str, Any]:
        return world.get(f"/v1/specs/{SPEC}")

    reason = eventually(lambda: shown()["caching_off"].get("zebras"))
    assert key in reason
    metrics = world.client.get("/metrics").text
    assert 'forefill_exactness_checks_total{outcome="different"}' in metrics
    assert f'forefill_caching_off{{corpus="zebras",spec="{SPEC}"}} 1.0' in metrics
    assert world.get("/readyz")["ready"] is True

    refused = world.client.post(ENABLE, json={"corpus": "zebras"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    (run,) = [run for run in world.get("/v1/runs")["runs"] if run["kind"] == "verify"]
    assert run["id"] in refused.json()["detail"]
    assert world.client.post(ENABLE, json={}).status_code == 503
    assert ask(world, "zebras") == (right, {"off"})

    world.worker.run_pending_jobs()
    assert world.get(f"/v1/runs/{run['id']}")["differences"] == 1
    enabled = world.client.post(ENABLE, json={})
    assert enabled.status_code == 200, enabled.text
    assert enabled.json() == shown()
    assert enabled.json()["caching_off"] == {}
    assert ask(world, "zebras") == (right, {"l2"})
    assert ask(world, "zebras") == (right, {"l1"})
    assert world.client.post(ENABLE, json={"corpus": "zebras"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/v1/specs/none/plain/enable", {}, 404, "there is no spec"),
        ("/v1/specs/a%00b/plain/enable", {}, 404, ""),
        (ENABLE, {"corpus": "none"}, 404, "there is no corpus 'none'"),
        (ENABLE, {"corpora": []}, 422, "corpora"),
        (ENABLE, {"corpus": 1}, 422, "corpus"),
    ],
)
def test_what_cannot_be_enabled_is_said(
    world: ApiWorld, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    response = world.client.post(path, json=body)
    assert response.status_code == status, response.text
    assert detail in response.json()["detail"]


@pytest.fixture
def commands(tmp_path: Path, cache_url: str) -> Commands:
    made = Commands(
        tmp_path,
        {
            "FOREFILL_DATABASE_URL": f"sqlite:///{tmp_path / 'forefill.db'}",
            "FOREFILL_CACHE_URL": cache_url,
            "FOREFILL_SPEC_VALIDATION_CONTEXTS": "1000",
        },
    )
    made.upgrade()
    return made


def test_the_command_verifies_validates_and_enables(commands: Commands) -> None:
    commands.answer("corpus", "create", "docs")
    database = Database(create_database_engine(f"sqlite:///{commands.folder / 'forefill.db'}"))
    with closing(database), database.write() as connection:
        collection = get_corpus(connection, "docs").collection
        assert disable_caching(connection, collection, SPEC, reason="an audit said so") is not None
    sentence = f"caching of corpus docs under {SPEC} is off: an audit said so"
    assert sentence in commands.run("spec", "ls").stderr
    assert sentence in commands.run("status").stdout
    (off,) = commands.answer("status")["caching_off"]
    assert (off["corpus"], off["spec"], off["reason"]) == ("docs", SPEC, "an audit said so")

    done = commands.run("spec", "enable", SPEC, "--corpus", "docs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"caching of corpus docs under {SPEC} is on again"
    again = commands.run("spec", "enable", SPEC)
    assert again.stdout.splitlines()[-1] == f"caching under {SPEC} was not off: nothing changed"
    assert commands.answer("spec", "enable", SPEC)["caching_off"] == {}
    missing = commands.run("spec", "enable", SPEC, "--corpus", "none")
    assert (missing.returncode, missing.stderr) == (1, "forefill: there is no corpus 'none'\n")
