"""An edit whose new tokens are served, and a deletion that shows."""

import time
from datetime import datetime

from demo.client import Answer
from demo.sample import CORPUS, Question
from demo.scene import Scene

_SHOWN_IDS = 8
_SHOWN_CHARS = 44


def edit(scene: Scene, question: Question, document_id: str) -> None:
    """Change how a document begins, and show that the same question is answered with the new tokens."""
    scene.screen.step(f"Edit {document_id}: “{question.text}”")
    text = scene.texts[document_id]
    opening = text.partition(". ")[0]
    # It holds the question, so that search finds the passage that begins with it.
    sentence = f"Edited at {datetime.now().astimezone():%H:%M:%S} in answer to: {question.text}"
    before = scene.client.retrieve(question.text)
    scene.screen.command(f"curl -X PUT {scene.ready.api}/v1/corpora/{CORPUS}/documents -d '{{\"documents\": […]}}'")
    began = time.monotonic()
    run_id = scene.client.put({document_id: sentence + text.removeprefix(opening)})
    run = scene.client.wait_for_run(run_id)
    spent_s = time.monotonic() - began
    after = scene.client.retrieve(question.text)
    _show(scene, "before", before, opening, document_id)
    _show(scene, "after ", after, sentence, document_id)
    scene.checks.equal(
        f"the edit was served {spent_s:.2f} s after it was sent",
        expected=("succeeded", 1),
        seen=(run["state"], run["totals"]["done"]),
    )
    scene.checks.equal(
        "the same question is answered from generation 2 of the document, and from no other",
        expected=({1}, {2}),
        seen=(before.generations.get(document_id), after.generations.get(document_id)),
    )
    scene.checks.equal(
        "the new sentence is in the prompt, the old one is not",
        expected=(True, False),
        seen=(sentence in after.prompt_text, opening in after.prompt_text),
    )
    scene.checks.holds(
        "the new ids are tiktoken's, and were in the cache before the question came",
        held=scene.is_exact(after) and after.all_hit and after.token_ids != before.token_ids,
        expected="new ids, equal to tiktoken's, every passage from the cache",
        seen=f"exact: {scene.is_exact(after)}, sources: {after.sources}",
    )


def delete(scene: Scene, question: Question, document_id: str) -> None:
    """Delete a document, and show that nothing finds it any more."""
    scene.screen.step(f"Delete {document_id}: “{question.text}”")
    before = scene.client.retrieve(question.text)
    scene.screen.command(f"forefill delete --corpus {CORPUS} {document_id} --wait")
    run = scene.stack.forefill("delete", "--corpus", CORPUS, document_id, "--wait")
    after = scene.client.retrieve(question.text)
    scene.checks.equal("the deletion is done", expected=("succeeded", 1), seen=(run["state"], run["totals"]["done"]))
    scene.checks.equal(
        "it was in the answer, and is in it no more",
        expected=(True, False),
        seen=(document_id in before.generations, document_id in after.generations),
    )
    scene.checks.equal(
        "asking for the document answers 404", expected=404, seen=scene.client.document_status(document_id)
    )
    scene.checks.holds(
        "what is left has tiktoken's ids, all from the cache",
        held=scene.is_exact(after) and after.all_hit,
        expected="exact ids, every passage from the cache",
        seen=f"exact: {scene.is_exact(after)}, sources: {after.sources}",
    )


def _show(scene: Scene, when: str, answer: Answer, fragment: str, document_id: str) -> None:
    generations = ", ".join(map(str, sorted(answer.generations.get(document_id, ())))) or "-"
    if fragment not in answer.prompt_text:
        scene.screen.line(f"{when}  generation {generations}  (the text is not in the prompt)")
        return
    ids = " ".join(map(str, scene.ids_of(answer, fragment, limit=_SHOWN_IDS)))
    scene.screen.line(f"{when}  generation {generations}  “{fragment[:_SHOWN_CHARS]}…”  ids {ids} …")
