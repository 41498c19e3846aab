"""`forefill spec` as users run it."""

import json
from pathlib import Path

import pytest

from pipeline.framing import packaged_frame
from tests.support.commands import Commands
from tests.unit.tokenizers.hf_files import added, tokenizer_json, with_added

QUICKLY = ("--contexts", "1000")


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    made = Commands(tmp_path, {"FOREFILL_DATABASE_URL": f"sqlite:///{tmp_path / 'forefill.db'}"})
    made.upgrade()
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json("small"))
    return made


def test_a_tokenizer_is_added_listed_and_used_by_a_corpus(commands: Commands) -> None:
    assert commands.answer("spec", "ls") == {"specs": [], "next": None}
    named = ("--tokenizer", "tokenizer.json", "--frame", "chatml", "--name", "small", *QUICKLY)
    answer = commands.answer("spec", "add", *named)
    assert (answer["id"], answer["status"], answer["created"]) == ("small/chatml", "ready", True)
    assert answer["validation"]["contexts"] == 1000
    again = commands.answer("spec", "add", *named)
    assert (again["created"], again["fingerprint"]) == (False, answer["fingerprint"])
    assert commands.answer("corpus", "create", "chat", "--spec", "small/chatml")["spec"] == "small/chatml"
    (listed,) = commands.answer("spec", "ls")["specs"]
    assert (listed["status"], listed["coverage"]) == ("active", {"chat": 1.0})
    shown = commands.run("spec", "ls")
    assert shown.stdout.splitlines()[1].split()[:5] == [
        "small/chatml",
        "hf",
        "active",
        answer["fingerprint"][:12],
        "chat",
    ]


def test_a_tokenizer_comes_from_standard_input_and_a_frame_from_a_file(commands: Commands) -> None:
    frame = json.loads(packaged_frame("chatml").canonical_json()) | {"name": "own"}
    (commands.folder / "own.json").write_text(json.dumps(frame))
    done = commands.run(
        "spec", "add", "--tokenizer", "-", "--frame", "own.json", *QUICKLY, stdin=tokenizer_json("small")
    )
    assert done.returncode == 0, done.stderr
    assert "1,000 prompts of" in done.stdout
    assert "have exact ids" in done.stdout
    assert (
        commands.answer("spec", "add", "--encoding", "cl100k_base", "--frame", "plain", *QUICKLY)["source"]
        == "tiktoken"
    )


def test_a_frame_is_compared_with_the_models_template(commands: Commands) -> None:
    template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    (commands.folder / "short.jinja").write_text(template)
    (commands.folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template + "{{ '<|im_start|>assistant\n' }}"})
    )
    new = ("spec", "add", "--tokenizer", "tokenizer.json", "--frame", "chatml", *QUICKLY, "--template")
    refused = commands.run(*new, "short.jinja")
    assert refused.returncode == 1
    assert "the template writes nothing more, the frame '<|im_start|>assistant" in refused.stderr
    assert commands.answer(*new, "tokenizer_config.json")["created"] is True


def test_gpt_oss_needs_no_file(commands: Commands) -> None:
    answer = commands.answer("spec", "add", "--encoding", "o200k_harmony", "--frame", "harmony", *QUICKLY)
    assert (answer["id"], answer["source"], answer["validation"]["contexts"]) == (
        "o200k_harmony/harmony",
        "tiktoken",
        1000,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--tokenizer", "none.json", "--frame", "chatml"), 1, "none.json: No such file"),
        (("--tokenizer", "tokenizer.json", "--frame", "none"), 1, "frame 'none' is neither a file nor one of chatml"),
        (("--tokenizer", "tokenizer.json", "--frame", "llama3"), 1, "has no control token"),
        (("--tokenizer", "tokenizer.json", "--frame", "tokenizer.json"), 1, "exactly the fields"),
        (
            ("--tokenizer", "tokenizer.json", "--frame", "chatml", "--template", "tokenizer.json"),
            1,
            "this tokenizer_config.json has no chat_template",
        ),
        (("--tokenizer", "odd.json", "--frame", "chatml"), 1, "'<mask>' swallows white space before it"),
        (
            ("--tokenizer", "tokenizer.json", "--frame", "chatml", "--name", "A b"),
            1,
            "tokenizer name 'A b' is not like",
        ),
        (("--tokenizer", "tokenizer.json", "--encoding", "x", "--frame", "chatml"), 1, "either a packaged encoding or"),
        (("--frame", "chatml"), 1, "either a packaged encoding or"),
        (("--encoding", "cl100k_base", "--frame", "plain", "--contexts", "10"), 2, "--contexts"),
        (("--encoding", "cl100k_base"), 2, "--frame"),
    ],
)
def test_what_is_refused_is_said_in_one_sentence(
    commands: Commands, arguments: tuple[str, ...], code: int, message: str
) -> None:
    odd = tokenizer_json("small", with_added(added("<mask>", 302, lstrip=True)))
    (commands.folder / "odd.json").write_bytes(odd)
    done = commands.run("spec", "add", *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert commands.answer("spec", "ls")["specs"] == []


def test_a_corpus_with_an_unknown_spec_is_refused_with_what_to_do(commands: Commands) -> None:
    done = commands.run("corpus", "create", "chat", "--spec", "none/chatml")
    assert done.returncode == 1
    assert "there is no spec 'none/chatml': see `forefill spec ls`" in done.stderr
