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


@pytest.mark.parametrize(
    "markup",
    [
        *("<div>" * 20_000 + "deep", "<p>" * 20_000 + "deep", "<" * 20_000 + " deep", "<table><td>" * 20_000 + "deep"),
        *("<![" * 20_000 + ">deep", f"<p {' '.join(f'a{number}' for number in range(20_000))}>deep"),
    ],
    ids=lambda markup: markup[:5],
)
def test_depth_is_no_limit(markup: str) -> None:
    assert html_text(markup).endswith("deep")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>cut in a <ta", "cut in a"),
        ("<p>a<p>b<li>c<li>d</ul>e", "a\n\nb\n\nc\nde"),
        ("<table><tr><td>1<td>2<tr><td>3</table>4", "1 2\n3\n\n4"),
        ("<b>bold <i>both</b> italic?</i> none", "bold both italic? none"),
        ("x</p></div></nothing>y", "xy"),
        ("&amp &ampx; &notit; &#128; &#0; &#xD800; &bogus;", "& &x; ¬it; € \ufffd \ufffd &bogus;"),
        ("<!-- a > b -->c<!-->d-->e<!doctype x>f<?pi?>g<![CDATA[h]]>i", "cd-->efgi"),
        ("<script>if (a < b) '</p>'</script>x<style>y", "x"),
        ("<title>a <b></title><textarea>c <b></textarea><xmp><d></xmp>", "a <b>\n\nc <b>\n\n<d>"),
        ("a<template><div>b</template>c<noscript><td>d</NoScript >e", "ace"),
        ("<template>a<template><table>b</template>c</template>d<pre> e<template></pre>f", "d\n\n e"),
        ("<textarea></template></textarea>", "</template>"),
        ("<pre>\r\n a\r b</pre> c\r\nd", " a\n b\n\nc d"),
        ("<svg><title>a</title><style>b</style></svg><math><mi>c</mi></math>", "a\n\nc"),
        ("a<br/>b<hr>c<img alt=d>e<input value=f>", "a\nb\n\nce"),
        ("<p>\ufeffa\xa0 b\u2028c", "\ufeffa\xa0 b\u2028c"),
        ("</body></html>after", "after"),
    ],
)
def test_the_text_of_a_malformed_page_is_the_same_on_every_host(markup: str, text: str) -> None:
    assert html_text(markup) == text


def test_a_nul_is_refused_as_everywhere() -> None:
    with pytest.raises(InvalidInput, match="NUL"):
        html_text("<p>a\0b")
