"""What people and programs get to see."""

import pytest

from pipeline.cli.output import Output, printable


def test_control_characters_of_documents_do_not_reach_a_terminal() -> None:
    assert printable("plain ünïcode 漢字") == "plain ünïcode 漢字"
    assert printable("\x1b[2J\u202eevil\r\n\ud800") == "\\x1b[2J\\u202eevil\\r\\n\\ud800"


def test_a_table_is_plain_aligned_text_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("NAME", "COUNT", "ERROR"), [("a" * 100, 1234, None), ("b\x1b", 5, "[red]x[/red]")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "NAME" + " " * 98 + "COUNT  ERROR",
        "a" * 100 + "  1,234  -",
        "b\\x1b" + " " * 95 + "      5  [red]x[/red]",
    ]


def test_json_and_text_exclude_each_other(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    for as_json in (False, True):
        output = Output(as_json=as_json)
        output.line("text")
        output.table(("A",), [(1,)])
        output.emit({"value": "é"})
    assert capsysbinary.readouterr().out == 'text\nA\n1\n{"value":"é"}\n'.encode()
