"""The readable text of an HTML page: what a reader would see, with its paragraphs and preformatted parts.

The parser is lxml at one version, with the libxml2 inside its wheels: the text of a page, its hash and its passages
must not depend on the host. It gives events and builds no tree, so that time grows with the page alone, however deep.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from pipeline.errors import InvalidInput

_RAW = frozenset({"script", "style"})
_HIDING = frozenset({"template", "noscript"})
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
_END_OF_HIDING = re.compile(rf"</({'|'.join(sorted(_HIDING))})(?=[\s/>])", re.IGNORECASE)
_MARK = "forefill-end:"
_MARK_IN_TEXT = re.compile(rf"<!--{_MARK}[a-zA-Z]+-->")


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
        InvalidInput: It holds a NUL character, or is no markup that can be parsed.
    """
    if "\0" in markup:
        raise InvalidInput("holds a NUL character")
    seen = _Seen()
    parser = etree.HTMLParser(target=seen, huge_tree=True, encoding="utf-8")
    try:
        parser.feed(_marked(markup).encode())
        parser.close()
    except etree.LxmlError as error:
        raise InvalidInput("HTML that cannot be parsed") from error
    return "".join(_joined(seen.nodes))


def _marked(markup: str) -> str:
    """Put a comment before each end of what hides its content: libxml2 passes over such an end if a `div` is open."""
    return _END_OF_HIDING.sub(rf"<!--{_MARK}\1-->\g<0>", markup)


@dataclass(slots=True)
class _Seen:
    """Takes the parser's events and keeps texts and the edges between them in reading order."""

    nodes: list[_Edge | str] = field(default_factory=list)
    raw: int = 0
    """Open elements whose content is no text."""
    hiding: list[str] = field(default_factory=list)
    """Open elements whose content is markup that nobody sees."""

    def start(self, name: str, _attributes: object) -> None:
        """An element begins; `br` and `hr` end at once."""
        if name in _RAW:
            self.raw += 1
        elif name in _HIDING:
            self.hiding.append(name)
        else:
            self._edge(_Edge(1) if name == "br" else _edges(name)[0])

    def end(self, name: str) -> None:
        """An element ends, also one that the page left open."""
        if name in _RAW:
            self.raw -= 1
        elif name not in _HIDING and name != "br":
            self._edge(_edges(name)[1])

    def comment(self, text: str) -> None:
        """A comment, maybe one of ours: the innermost element of that name hides no more."""
        name = text.removeprefix(_MARK).lower()
        if name != text.lower() and name in self.hiding:
            while self.hiding.pop() != name:
                pass

    def data(self, text: str) -> None:
        """Text, or part of one."""
        if not self.raw and not self.hiding:
            self.nodes.append(text)

    def close(self) -> None:
        """The page is over."""

    def _edge(self, edge: _Edge | str) -> None:
        if not self.hiding:
            self.nodes.append(edge)
        elif isinstance(edge, _Edge) and edge.preformatted:
            self.nodes.append(_Edge(0, preformatted=edge.preformatted))


def _edges(name: str) -> tuple[_Edge | str, _Edge | str]:
    """Return what stands before and after an element's content."""
    if name == "pre":
        return _Edge(2, preformatted=1), _Edge(2, preformatted=-1)
    if name in _PARAGRAPHS:
        return _Edge(2), _Edge(2)
    if name in _LINES:
        return _Edge(1), _Edge(1)
    return "", " " if name in _CELLS else ""


def _joined(nodes: list[_Edge | str]) -> Iterator[str]:
    """Yield the text of each block and, between two that are not empty, the widest edge."""
    block: list[str] = []
    feeds, preformatted, begun = 0, 0, False
    for node in (*nodes, _Edge(0)):
        if isinstance(node, str):
            block.append(node)
            continue
        text = _MARK_IN_TEXT.sub("", "".join(block))
        text = text.strip("\r\n") if preformatted else _WHITE_SPACE.sub(" ", text).strip(" ")
        if text.strip():
            yield "\n" * feeds + text if begun else text
            begun, feeds = True, 0
        block.clear()
        feeds = max(feeds, node.feeds)
        preformatted += node.preformatted
