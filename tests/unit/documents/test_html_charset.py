"""A page is read by the encoding that it declares."""

import pytest

from pipeline.documents.html_charset import declared_encoding, decode_page
from pipeline.errors import InvalidInput

CYRILLIC = "Привет"


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"<p>nothing", None),
        (b"<meta charset=KOI8-R>", "koi8-r"),
        (b"<META CHARSET = ' Shift_JIS '>", "shift_jis"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">', "windows-1251"),
        (b"<meta content='text/html;charset=\"gb2312\"' http-equiv=content-type>", "gbk"),
        (b'<meta http-equiv="refresh" content="1; charset=koi8-r">', None),
        (b'<meta name="description" content="charset=koi8-r">', None),
        (b"<meta charset=nonsense><meta charset=koi8-r>", "koi8-r"),
        (b"<meta charset=utf-16>", "utf-8"),
        (b"<meta charset=x-user-defined>", "windows-1252"),
        (b"<meta charset=latin1>", "windows-1252"),
        (b'<?xml version="1.0" encoding="ISO-8859-2"?><html>', "iso-8859-2"),
        (b"<?xml version='1.0' encoding='iso-8859-2'?><meta charset=koi8-r>", "koi8-r"),
        (b"<!-- <meta charset=koi8-r> --><p>", None),
        (b"<script>'<meta charset=koi8-r>'</script>", None),
        (b"<meta charset='koi8", None),
        (b"", None),
        (b"\0\xff<![<meta charset=koi8-r>", None),
    ],
)
def test_a_declaration_is_found_where_browsers_look(head: bytes, encoding: str | None) -> None:
    assert declared_encoding(head) == encoding


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("é".encode(), "é"),
        (b"<meta charset=koi8-r>" + CYRILLIC.encode("koi8-r"), f"<meta charset=koi8-r>{CYRILLIC}"),
        (b"\xef\xbb\xbf<meta charset=koi8-r>" + CYRILLIC.encode(), f"<meta charset=koi8-r>{CYRILLIC}"),
        (b"\xff\xfe" + CYRILLIC.encode("utf-16-le"), CYRILLIC),
        (b"\xfe\xff" + CYRILLIC.encode("utf-16-be"), CYRILLIC),
        (b"<meta charset=latin1>\x80\x81\xe9", "<meta charset=latin1>€\x81é"),
        (b"<meta charset=shift_jis>\x87\x40", "<meta charset=shift_jis>①"),
        (b"<meta charset=gb2312>\x81\x30\x81\x30", "<meta charset=gb2312>\x80"),
        (b" " * 1024 + b"<meta charset=koi8-r>" + "é".encode(), " " * 1024 + "<meta charset=koi8-r>é"),
    ],
)
def test_a_page_is_read_by_the_encoding_it_declares(content: bytes, text: str) -> None:
    assert decode_page(content) == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9", "is not UTF-8 at byte 3"),
        (b"<meta charset=utf8>\xe9", "is not UTF-8 at byte 19"),
        (b"<meta charset=euc-jp>\xff", "is not euc-jp at byte 21"),
        (b"\xff\xfea", "is not UTF-16-LE at byte 0"),
        (b"<meta charset=iso-2022-kr>", "declares the encoding replacement, which cannot be read"),
    ],
)
def test_bytes_that_are_not_what_is_declared_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_page(content)
    assert str(caught.value) == reason
