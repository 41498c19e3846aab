"""Text out of documentation files: plain and marked-up text as it is, of HTML what a reader would see.

The product's own reader keeps more of a page's structure and takes a hundred times as long; here only the words count.
"""

import gzip
import re
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Larger files are indexes and change logs."""

_HTML = {".html", ".htm", ".xhtml"}
_PLAIN = {".rst", ".txt", ".md"}
_UNSEEN = ["script", "style", "nav", "noscript", "template", "svg"]
_PARAGRAPH_EDGE = re.compile(
    rb"<(?=/?(?:p|div|h[1-6]|ul|ol|dl|table|section|article|pre|blockquote|header|footer|main|aside|form)\b)",
    re.IGNORECASE,
)
_LINE_EDGE = re.compile(rb"<(?=(?:li|dt|dd|tr|br)\b)", re.IGNORECASE)


def kind_of(path: Path) -> str | None:
    """Return `html` or `plain` for a file whose text is wanted, packed or not; None for all others."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() in _HTML:
        return "html"
    return "plain" if suffix.lower() in _PLAIN else None


def read_text(path: Path) -> str:
    """Return the text of a file, empty where there is none to be had: broken, too large, not UTF-8."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if len(content) > MAX_FILE_BYTES:
            return ""
        return html_text(content) if kind_of(path) == "html" else content.decode()
    except (OSError, EOFError, ValueError):
        return ""


def html_text(content: bytes) -> str:
    """Return what a reader sees of a page, blocks set apart by blank lines."""
    spaced = _LINE_EDGE.sub(b"\n<", _PARAGRAPH_EDGE.sub(b"\n\n<", content))
    tree = LexborHTMLParser(spaced.decode(errors="replace"))
    tree.strip_tags(_UNSEEN)
    return tree.body.text() if tree.body is not None else ""
