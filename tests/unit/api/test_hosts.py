import pytest
from starlette.datastructures import Headers

from api.hosts import HostRules, is_loopback, is_loopback_address, refuse_beyond_loopback

LOCAL = ("host", "localhost:8080")
PUBLIC = ("host", "forefill.example.com")


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode()) for name, value in pairs])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]", "[::1]:8080"],
)
def test_loopback_names_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", ":80", "example.com", "localhost.example.com", "127.0.0.1.nip.io", "128.0.0.1", "10.0.0.1", "0.0.0.0"),
        *("[::]", "[::1", "::1", "user@localhost", "localhost:80:80", "localhost:x", "localhost/", " localhost", "[1]"),
        *("0x7f.1", "2130706433", "localhost\n", "localhost:123456"),
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not is_loopback(host)


def test_addresses_to_listen_on_come_without_brackets() -> None:
    assert is_loopback_address("::1")
    assert is_loopback_address("127.0.0.1")
    assert not is_loopback_address("::")
    assert not is_loopback_address("0.0.0.0")


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("host", "evil.example")],
        [LOCAL, LOCAL],
        [LOCAL, ("origin", "https://evil.example")],
        [LOCAL, ("origin", "null")],
        [LOCAL, ("origin", "file://localhost")],
        [LOCAL, ("origin", "http://[")],
        [LOCAL, ("origin", "http://localhost"), ("origin", "http://evil.example")],
    ],
)
def test_without_keys_foreign_hosts_and_origins_are_refused(pairs: list[tuple[str, str]]) -> None:
    assert refuse_beyond_loopback(headers(*pairs)) is not None


@pytest.mark.parametrize("pairs", [[LOCAL], [LOCAL, ("origin", "http://127.0.0.1:3000")]])
def test_without_keys_requests_of_this_machine_pass(pairs: list[tuple[str, str]]) -> None:
    assert refuse_beyond_loopback(headers(*pairs)) is None


@pytest.mark.parametrize("host", ["forefill.example.com", "10.1.2.3:8080", "localhost", "[fe80::1]:80"])
def test_with_keys_any_host_passes_unless_some_are_listed(host: str) -> None:
    assert HostRules().refuse(headers(("host", host))) is None


@pytest.mark.parametrize("pairs", [[], [PUBLIC, PUBLIC], [("host", "")], [("host", "a b")], [("host", "a@b")]])
def test_with_keys_a_request_still_needs_one_host(pairs: list[tuple[str, str]]) -> None:
    assert HostRules().refuse(headers(*pairs)) is not None


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("forefill.example.com", True),
        ("FOREFILL.example.com:8443", True),
        ("localhost:8080", True),
        ("127.0.0.1", True),
        ("[2001:db8::1]:80", True),
        ("other.example.com", False),
        ("forefill.example.com.evil.example", False),
        ("forefill.example.com.", False),
        ("10.1.2.3", False),
    ],
)
def test_listed_hosts_are_the_only_ones_beside_loopback(host: str, *, passes: bool) -> None:
    rules = HostRules(allowed_hosts=("forefill.example.com", "[2001:db8::1]"))
    assert (rules.refuse(headers(("host", host))) is None) is passes
    assert rules.refuse(headers(("host", host)), any_host=True) is None


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("forefill.example.com", "https://forefill.example.com", True),
        ("forefill.example.com", "http://forefill.example.com", True),
        ("forefill.example.com:443", "https://forefill.example.com", True),
        ("Forefill.Example.com", "https://forefill.example.com:443", True),
        ("localhost:8080", "http://localhost:8080", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("localhost:8080", "http://localhost:3000", False),
        ("forefill.example.com", "https://forefill.example.com:8443", False),
        ("forefill.example.com", "https://evil.example", False),
        ("forefill.example.com", "null", False),
        ("forefill.example.com", "", False),
        ("forefill.example.com", "forefill.example.com", False),
        ("forefill.example.com", "file://forefill.example.com", False),
        ("forefill.example.com", "https://forefill.example.com/", False),
        ("forefill.example.com", "https://user@forefill.example.com", False),
        ("forefill.example.com", "https://app.example.com", True),
        ("forefill.example.com", "HTTPS://App.example.com", True),
        ("forefill.example.com", "http://app.example.com", False),
        ("forefill.example.com", "https://app.example.com:444", False),
        ("forefill.example.com", "https://app.example.com.evil.example", False),
    ],
)
def test_an_origin_must_be_the_hosts_own_or_listed(host: str, origin: str, *, passes: bool) -> None:
    rules = HostRules(allowed_origins=("https://app.example.com",))
    assert (rules.refuse(headers(("host", host), ("origin", origin))) is None) is passes


def test_one_foreign_origin_among_two_is_refused() -> None:
    both = headers(PUBLIC, ("origin", "https://forefill.example.com"), ("origin", "https://evil.example"))
    assert HostRules().refuse(both) is not None
