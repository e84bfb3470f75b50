"""The bench's load generators reach this machine and nothing else."""

import pytest

from bench.errors import BenchError
from bench.loopback import endpoint, loopback


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.255.254", "::1"])
def test_loopback_addresses_are_taken(address: str) -> None:
    assert loopback(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.1",
        "0.0.0.0",
        "128.0.0.1",
        "10.0.0.1",
        "169.254.0.1",
        "2001:db8::1",
        "::",
        "fe80::1",
        "::ffff:127.0.0.1",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(BenchError, match=r"is not a loopback address.*127\.0\.0\.0/8 and ::1 only"):
        loopback(address)


@pytest.mark.parametrize("text", ["localhost", "mx.example.com", "", "127.1", "127.0.0.1:25"])
def test_names_are_refused_even_those_that_mean_this_machine(text: str) -> None:
    with pytest.raises(BenchError, match="is no IP address"):
        loopback(text)


@pytest.mark.parametrize(("address", "written"), [("127.0.0.1", "127.0.0.1:25"), ("::1", "[::1]:25")])
def test_endpoint_is_as_postfix_writes_it(address: str, written: str) -> None:
    assert endpoint(address, 25) == written


def test_endpoint_refuses_what_is_not_loopback() -> None:
    with pytest.raises(BenchError):
        endpoint("192.0.2.1", 25)
