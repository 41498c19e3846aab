"""Which `Host` and `Origin` a request may come with.

While there are no API keys, whoever reaches the port may do everything. So a browser must not be talked into reaching
it: a page's own host name resolved to 127.0.0.1 (DNS rebinding) shows in `Host`, a cross-site request in `Origin`.

With keys a foreign `Host` is harmless by itself, since no browser adds a bearer key on its own: a deployment has names
that it need not know. `Origin` must still be the same as `Host`, or listed. Its scheme is not compared: behind a proxy
that ends TLS nobody here knows it.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\s]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Return whether a host, with or without port, names this machine's loopback: `localhost`, 127/8 or `[::1]`."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_loopback_address(address: str) -> bool:
    """Return whether an address to listen on is on loopback; an IPv6 address comes without brackets."""
    return is_loopback(f"[{address}]" if ":" in address else address)


def refuse_beyond_loopback(headers: Headers) -> str | None:
    """Return why a request is not answered without keys, None if it is."""
    host = _only_host(headers)
    if host is None or not is_loopback(host):
        return "without API keys only requests to a loopback Host are answered"
    if not all(_is_loopback_origin(origin) for origin in headers.getlist("origin")):
        return "without API keys requests of other Origins are not answered"
    return None


@dataclass(frozen=True, slots=True)
class HostRules:
    """What is asked of `Host` and `Origin` with keys."""

    allowed_hosts: Collection[str] = ()
    """Names beside loopback, in lower case; empty for any."""
    allowed_origins: Collection[str] = ()
    """`scheme://host[:port]`, in lower case."""

    def refuse(self, headers: Headers, *, any_host: bool = False) -> str | None:
        """Return why a request is not answered, None if it is.

        Args:
            headers: Of the request.
            any_host: Whether the address is for everybody, probes that ask by IP address included.
        """
        host = _only_host(headers)
        if host is None:
            return "a request needs one Host"
        if self.allowed_hosts and not any_host and not self._knows(host):
            return "this Host is not among FOREFILL_ALLOWED_HOSTS"
        if not all(self._allows(origin, host) for origin in headers.getlist("origin")):
            return "this Origin is neither the Host's own nor among FOREFILL_ALLOWED_ORIGINS"
        return None

    def _knows(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        return is_loopback(host) or (match is not None and match[1].lower() in self.allowed_hosts)

    def _allows(self, origin: str, host: str) -> bool:
        return origin.lower() in self.allowed_origins or _is_same_origin(origin, host)


def _only_host(headers: Headers) -> str | None:
    hosts = headers.getlist("host")
    return hosts[0] if len(hosts) == 1 and _HOST.fullmatch(hosts[0]) else None


def _is_same_origin(origin: str, host: str) -> bool:
    scheme, separator, netloc = origin.lower().partition("://")
    ours, theirs = _HOST.fullmatch(host.lower()), _HOST.fullmatch(netloc)
    if scheme not in _PORTS or not separator or ours is None or theirs is None or ours[1] != theirs[1]:
        return False
    default = _PORTS[scheme]
    return int(ours[2] or default) == int(theirs[2] or default)


def _is_loopback_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in _PORTS and is_loopback(parts.netloc)
