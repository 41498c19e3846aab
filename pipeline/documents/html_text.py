"""The readable text of an HTML page: what a reader would see, with its paragraphs and preformatted parts."""

import re
import warnings
from collections.abc import Iterator
from itertools import groupby

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, NavigableString, XMLParsedAsHTMLWarning
from bs4.element import PreformattedString
from bs4.exceptions import ParserRejectedMarkup

from pipeline.errors import InvalidInput

_UNSEEN = ["script", "style", "template", "noscript"]
_CELLS = ["td", "th"]
_LINES = ["dd", "dt", "li", "option", "tr"]
_PARAGRAPHS = [
    *("address", "article", "aside", "blockquote", "body", "caption", "div", "dl", "fieldset", "figcaption", "figure"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "main", "nav", "ol", "p", "pre"),
    *("section", "table", "title", "ul"),
]

_WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")


class _Break(NavigableString):
    """One or two line feeds that stand for the edge of a block."""


def html_text(markup: str) -> str:
    """Extract the text of a page.

    Blocks are set apart by one or two line feeds and white space is folded, except inside `pre`; scripts, styles and
    comments are dropped. The title, if there is one, comes first.

    Raises:
        InvalidInput: This is no markup that can be parsed.
    """
    page = _parsed(markup)
    for element in page.find_all(_UNSEEN):
        element.decompose()
    preformatted = {id(string) for element in page.find_all("pre") for string in element.strings}
    _mark_edges(page)
    return "".join(_pieces(page, preformatted=preformatted))


def _parsed(markup: str) -> BeautifulSoup:
    with warnings.catch_warnings():
        # An XML declaration, or a text that looks like a file name, makes a page no less welcome.
        warnings.simplefilter("ignore", category=XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", category=MarkupResemblesLocatorWarning)
        try:
            return BeautifulSoup(markup, "html.parser")
        except ParserRejectedMarkup as error:
            raise InvalidInput("HTML that cannot be parsed") from error


def _mark_edges(page: BeautifulSoup) -> None:
    for element in page.find_all("br"):
        element.replace_with(_Break("\n"))
    for element in page.find_all(_CELLS):
        element.insert_after(NavigableString(" "))
    for names, edge in ((_LINES, "\n"), (_PARAGRAPHS, "\n\n")):
        for element in page.find_all(names):
            element.insert_before(_Break(edge))
            element.insert_after(_Break(edge))


def _pieces(page: BeautifulSoup, *, preformatted: set[int]) -> Iterator[str]:
    """Yield the text of each block and, between two that are not empty, the widest edge."""
    strings = [node for node in page.descendants if _is_seen(node)]
    edge: str | None = None
    for is_break, group in groupby(strings, key=lambda string: isinstance(string, _Break)):
        block = list(group)
        if is_break:
            edge = edge and max([edge, *block], key=len)
            continue
        text = "".join(block)
        text = text.strip("\r\n") if id(block[0]) in preformatted else _WHITE_SPACE.sub(" ", text).strip(" ")
        if not text.strip():
            continue
        if edge:
            yield edge
        yield text
        edge = "\n"


def _is_seen(node: object) -> bool:
    """Whether a node is text of the page, not a comment, declaration or the like."""
    return isinstance(node, NavigableString) and not isinstance(node, PreformattedString)
