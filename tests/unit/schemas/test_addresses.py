"""However an address is written, it is reached or not like the machine that it stands for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import may_reach

LINK_LOCAL, LOOPBACK = IPv4Network("169.254.0.0/16"), IPv4Network("127.0.0.0/8")
PRIVATE = [IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
NETWORKS = [*PRIVATE, LINK_LOCAL, LOOPBACK, IPv4Network("0.0.0.0/0")]
MET = st.sampled_from(NETWORKS).flatmap(lambda network: st.ip_addresses(v=4, network=network))


def spellings(address: IPv4Address) -> list[str]:
    """The address itself, mapped into IPv6, by NAT64, and by 6to4."""
    number = int(address)
    wrapped = [(0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)]
    return [str(address), *(str(IPv6Address(each)) for each in wrapped), f"{IPv6Address(wrapped[0])}%eth0"]


@given(MET, st.booleans(), st.sampled_from(["hooks.example.org", "localhost", "127.0.0.1"]))
def test_each_spelling_of_an_address_is_reached_alike(address: IPv4Address, named: bool, host: str) -> None:
    assert len({may_reach(host, each, named=named) for each in spellings(address)}) == 1


@given(st.ip_addresses(v=4, network=LINK_LOCAL), st.booleans())
def test_where_machines_keep_their_credentials_nobody_is_led(address: IPv4Address, named: bool) -> None:
    assert not any(
        may_reach("desk.internal", each, named=named) for each in [*spellings(address), "fe80::1%eth0"]
    )


@pytest.mark.parametrize(
    ("host", "address", "named", "reached"),
    [
        ("hooks.example.org", "8.8.8.8", False, True),
        ("hooks.example.org", "10.0.0.7", False, False),
        ("desk.internal", "10.0.0.7", True, True),
        ("localhost", "::1", False, True),
        ("localhost", "8.8.8.8", True, False),
    ],
)
def test_a_private_network_is_reached_by_those_that_are_named(
    host: str, address: str, named: bool, reached: bool
) -> None:
    assert may_reach(host, address, named=named) is reached
