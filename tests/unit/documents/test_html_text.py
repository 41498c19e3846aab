"""What a reader would see of a page."""

import pytest

from pipeline.documents.html_text import html_text
from pipeline.errors import InvalidInput

PAGE = """<?xml version="1.0"?><!DOCTYPE html>
<html><head><title>Tea &amp; cake</title><style>p { color: red }</style></head>
<body><h1>Tea</h1><p>Boil <b>wa</b>ter.<br>Wait
  five   minutes.<!-- not longer --><script>alert("no")</script>
<pre>
cup:
    tea

</pre>
<ul><li>green<li>black</ul>
<table><tr><td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></table></body></html>"""


def test_text_keeps_paragraphs_lines_and_preformatted_parts_and_nothing_unseen() -> None:
    assert html_text(PAGE) == (
        "Tea & cake\n\nTea\n\nBoil water.\nWait five minutes.\n\ncup:\n    tea\n\ngreen\nblack\n\n1 2\n3 4"
    )


@pytest.mark.parametrize(("markup", "text"), [("", ""), ("plain", "plain"), ("a.txt", "a.txt"), ("<p> </p>", "")])
def test_a_page_need_not_have_markup_or_text(markup: str, text: str) -> None:
    assert html_text(markup) == text


@pytest.mark.parametrize("markup", ["<div>" * 20_000 + "deep", "<p>" * 20_000 + "deep", "<" * 20_000 + "deep"])
def test_depth_is_no_limit(markup: str) -> None:
    assert html_text(markup).endswith("deep")


def test_rejected_markup_is_an_input_error() -> None:
    with pytest.raises(InvalidInput, match="cannot be parsed"):
        html_text("<![" * 100)
