"""Bytes of an HTML page to text, by the encoding that the page declares, as browsers do (WHATWG HTML, 13.2.3.2).

A byte order mark decides; else `<meta charset>` or its older form in the first 1,024 bytes; else an XML declaration.
A page that declares nothing is UTF-8, where a browser would guess. Bytes that are not what is declared are an error.
"""

import re
from typing import Any

import webencodings
from lxml import etree

from pipeline.errors import InvalidInput

_PRESCAN_BYTES = 1024
_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xfe\xff": "utf-16-be", b"\xff\xfe": "utf-16-le"}
_XML = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([^\"'>]*)[\"']")
_CHARSET = re.compile(r"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)

_SUPERSETS = {"gbk": "gb18030"}
"""A codec for what the standard means by a name, where the one that webencodings takes knows less."""
_INSTEAD = {"utf-16le": "utf-8", "utf-16be": "utf-8", "x-user-defined": "windows-1252"}
"""What a declaration in ASCII cannot mean, and what is meant."""
_UNDEFINED = {0xDC00 + byte: byte for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
"""Bytes that windows-1252 leaves open, as Python keeps them: the standard makes control characters of them."""


def decode_page(content: bytes) -> str:
    """Return a page's text.

    Raises:
        InvalidInput: The bytes are not what the page declares, or it declares what is no encoding of text.
    """
    for mark, codec in _MARKS.items():
        if content.startswith(mark):
            return _decoded(content[len(mark) :], codec)
    return _decoded(content, declared_encoding(content[:_PRESCAN_BYTES]) or "utf-8")


def declared_encoding(head: bytes) -> str | None:
    """Return the standard's name of the encoding that the beginning of a page declares, None if there is none."""
    declared = _Declared()
    parser = etree.HTMLParser(target=declared, encoding="iso-8859-1")
    parser.feed(head.replace(b"\0", b" "))
    parser.close()
    xml = _XML.match(head)
    labels = [*declared.labels, xml[1].decode("latin-1")] if xml else declared.labels
    known = (webencodings.lookup(label) for label in labels)
    name = next((encoding.name for encoding in known if encoding is not None), None)
    return None if name is None else _INSTEAD.get(name, name)


class _Declared:
    """Takes the parser's events and keeps what `meta` elements say."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def start(self, name: str, attributes: Any) -> None:
        """Look at a `meta` element."""
        if name != "meta":
            return
        if "charset" in attributes:
            self.labels.append(attributes["charset"])
        elif attributes.get("http-equiv", "").lower() == "content-type":
            match = _CHARSET.search(attributes.get("content", ""))
            self.labels += [label for label in (match.groups() if match else ()) if label]

    def close(self) -> None:
        """The beginning is over."""


def _decoded(content: bytes, encoding: str) -> str:
    try:
        if encoding == "windows-1252":
            return content.decode("cp1252", "surrogateescape").translate(_UNDEFINED)
        known = webencodings.lookup(encoding)
        return content.decode(_SUPERSETS.get(encoding) or (known.codec_info.name if known else encoding))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not {_shown(encoding)} at byte {error.start}") from error
    except LookupError as error:
        raise InvalidInput(f"declares the encoding {encoding}, which cannot be read") from error


def _shown(encoding: str) -> str:
    return encoding.upper() if encoding.startswith("utf") else encoding
