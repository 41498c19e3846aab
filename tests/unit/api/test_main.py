import pytest

from api.starting import check_host
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize("has_keys", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_addresses_are_served(host: str, *, has_keys: bool) -> None:
    check_host(host, has_keys=has_keys)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.1", "example.com", "fe80::1"])
def test_addresses_that_others_reach_are_refused_without_keys(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"loopback.*forefill keys add"):
        check_host(host, has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1"])
def test_they_are_served_with_keys(host: str) -> None:
    check_host(host, has_keys=True)
