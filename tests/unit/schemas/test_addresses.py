"""However an address is written, it is reached or not like the machine that it stands for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.addresses import may_reach

LINK_LOCAL, LOOPBACK = IPv4Network("169.254.0.0/16"), IPv4Network("127.0.0.0/8")
NAT64 = IPv6Network("64:ff9b::/96")
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
    "address", ["fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "64:ff9b::6464:64c8"]
)
def test_no_name_leads_to_the_credentials_of_a_cloud(address: str) -> None:
    assert not may_reach("desk.internal", address, named=True)


@given(st.ip_addresses(v=6).filter(lambda each: int(each) >> 125 != 1))
def test_of_ipv6_only_global_unicast_is_public(address: IPv6Address) -> None:
    assume(address.ipv4_mapped is None and address not in NAT64)
    assert not may_reach("hooks.example.org", str(address), named=False)


@pytest.mark.parametrize("address", ["fec0::1", "::10.0.0.1", "5f00::1", "64:ff9b:1::a00:1", "100::1"])
def test_what_is_out_of_use_or_reserved_is_not_public(address: str) -> None:
    assert not may_reach("hooks.example.org", address, named=False)


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
