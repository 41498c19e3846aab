"""The readable text of an HTML page: what a reader would see, with its paragraphs and preformatted parts.

The parsed page is walked once and not changed, because every insertion into it searches its neighbours: marking the
edges of 40,000 paragraphs that way took eight minutes.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
from bs4.element import PageElement, PreformattedString, Tag
from bs4.exceptions import ParserRejectedMarkup

from pipeline.errors import InvalidInput

_UNSEEN = frozenset({"script", "style", "template", "noscript"})
_CELLS = frozenset({"td", "th"})
_LINES = frozenset({"dd", "dt", "li", "option", "tr"})
_PARAGRAPHS = frozenset(
    {
        *("address", "article", "aside", "blockquote", "body", "caption", "div", "dl", "fieldset", "figcaption"),
        *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "main", "nav", "ol"),
        *("p", "pre", "section", "table", "title", "ul"),
    }
)

_WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a block begins or ends."""

    feeds: int
    """Line feeds that set it apart."""

    preformatted: int = 0
    """1 where preformatted text begins, -1 where it ends."""


def html_text(markup: str) -> str:
    """Extract the text of a page.

    Blocks are set apart by one or two line feeds and white space is folded, except inside `pre`; scripts, styles and
    comments are dropped. The title, if there is one, comes first.

    Raises:
        InvalidInput: This is no markup that can be parsed.
    """
    return "".join(_joined(_walk(_parsed(markup))))


def _parsed(markup: str) -> BeautifulSoup:
    with warnings.catch_warnings():
        # An XML declaration, or a text that looks like a file name, makes a page no less welcome.
        warnings.simplefilter("ignore", category=XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", category=MarkupResemblesLocatorWarning)
        try:
            return BeautifulSoup(markup, "html.parser")
        except ParserRejectedMarkup as error:
            raise InvalidInput("HTML that cannot be parsed") from error


def _walk(page: BeautifulSoup) -> Iterator[_Edge | str]:
    """Yield texts and the edges between them in reading order; a page may be nested deeper than Python recurses."""
    pending: list[PageElement | _Edge | str] = [page]
    while pending:
        node = pending.pop()
        match node:
            case _Edge():
                yield node
            case PreformattedString():  # comments and declarations, which are strings, too
                pass
            case str():
                yield str(node)
            case Tag() if node.name == "br":
                yield _Edge(1)
            case Tag() if node.name not in _UNSEEN:
                before, after = _edges(node.name)
                pending.extend((after, *reversed(node.contents), before))
            case _:
                pass


def _edges(name: str) -> tuple[_Edge | str, _Edge | str]:
    """Return what stands before and after an element's content."""
    if name == "pre":
        return _Edge(2, preformatted=1), _Edge(2, preformatted=-1)
    if name in _PARAGRAPHS:
        return _Edge(2), _Edge(2)
    if name in _LINES:
        return _Edge(1), _Edge(1)
    return "", " " if name in _CELLS else ""


def _joined(nodes: Iterator[_Edge | str]) -> Iterator[str]:
    """Yield the text of each block and, between two that are not empty, the widest edge."""
    block: list[str] = []
    feeds, preformatted, begun = 0, 0, False
    for node in (*nodes, _Edge(0)):
        if isinstance(node, str):
            block.append(node)
            continue
        text = "".join(block)
        text = text.strip("\r\n") if preformatted else _WHITE_SPACE.sub(" ", text).strip(" ")
        if text.strip():
            yield "\n" * feeds + text if begun else text
            begun, feeds = True, 0
        block.clear()
        feeds = max(feeds, node.feeds)
        preformatted += node.preformatted
