"""Which addresses may be talked to: a table of the special ranges, and properties over all of them."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.webhooks.guard import GuardError, check_answers, parse_url, refusal

REFUSED = [
    "0.0.0.0",  # noqa: S104 -- an address of the table
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:a00:1::",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "",
    "localhost",
    "127.1",
    "0x7f.0.0.1",
    "2130706433",
]

ADMITTED = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_of_the_internet_is_refused(address: str) -> None:
    """No endpoint reaches the server's own network, its host or a metadata service."""
    assert refusal(address) is not None


@pytest.mark.parametrize("address", ADMITTED)
def test_an_address_of_the_internet_is_admitted(address: str) -> None:
    assert refusal(address) is None


@given(st.ip_addresses(v=4))
def test_what_is_not_global_is_refused_however_it_is_written(address: IPv4Address) -> None:
    """An address hidden in IPv6 is no way around the guard."""
    plain = refusal(str(address))
    if not address.is_global:
        assert plain is not None
    assert refusal(f"::ffff:{address}") == plain
    number = int(address)
    for disguise in (
        IPv6Address(number),
        IPv6Address((0x0064FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
    ):
        assert refusal(str(disguise)) is not None


@given(st.ip_addresses(v=6))
def test_what_is_not_global_in_ipv6_is_refused(address: IPv6Address) -> None:
    embeds = address.ipv4_mapped or address.sixtofour or address.teredo
    if embeds is None and (not address.is_global or address.is_multicast):
        assert refusal(str(address)) is not None


@given(st.ip_addresses(), st.integers(0, 32))
def test_a_listed_network_admits_what_is_in_it_and_nothing_else(
    address: IPv4Address | IPv6Address, prefix: int
) -> None:
    # A mapped address is judged as IPv4, so no IPv6 network admits it.
    assume(getattr(address, "ipv4_mapped", None) is None)
    network = ip_network((address, prefix), strict=False)
    assert refusal(str(address), (network,)) is None
    outside = IPv4Address("127.0.0.1")
    if outside not in network:
        assert refusal(str(outside), (network,)) is not None


def test_a_mapped_address_is_judged_by_the_ipv4_network_that_is_listed() -> None:
    assert refusal("::ffff:10.1.2.3", (ip_network("10.0.0.0/8"),)) is None


def test_every_answer_of_a_name_is_checked() -> None:
    """One private address among public ones refuses the name: the connection might go to it."""
    with pytest.raises(GuardError, match="private"):
        check_answers(["8.8.8.8", "10.0.0.1"], scheme="https", allowed=())
    with pytest.raises(GuardError):
        check_answers([], scheme="https", allowed=())
    assert check_answers(["8.8.8.8", "1.1.1.1", "8.8.8.8"], scheme="https", allowed=()) == ["8.8.8.8", "1.1.1.1"]


def test_plain_http_is_for_listed_networks_alone() -> None:
    allowed = (ip_network("10.0.0.0/8"),)
    assert check_answers(["10.0.0.1"], scheme="http", allowed=allowed) == ["10.0.0.1"]
    with pytest.raises(GuardError, match="KEYTURN_WEBHOOK_ALLOW"):
        check_answers(["8.8.8.8"], scheme="http", allowed=allowed)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://",
        "https:///path",
        "https://user@hooks.example.com/",
        "https://user:" + "pass@hooks.example.com/",
        "https://@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:https/",
        "https://hooks.example.com\\@10.0.0.1/",
        "https://hooks..example.com/",
        "https://.example.com/",
        "https://hooks.example.com/ space",
        "https://hooks.example.com/\r\nx: y",
        "https://h\N{LATIN SMALL LETTER O WITH DIAERESIS}oks.example.com/",
        "https://127.0.0.1/",
        "https://10.0.0.1:8443/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[not-an-address]/",
        "https://hooks.example.com/" + "x" * 2048,
    ],
)
def test_an_address_that_cannot_be_an_endpoint_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_url(url)
    assert caught.value.field == "url"


def test_an_address_is_taken_apart() -> None:
    target = parse_url("https://Hooks.example.com/in?kind=keys")
    assert (target.scheme, target.host, target.port, target.path) == (
        "https",
        "hooks.example.com",
        443,
        "/in?kind=keys",
    )
    assert parse_url("https://hooks.example.com:8443").path == "/"
    assert parse_url("https://[2606:4700::1]/x").host == "2606:4700::1"
    assert parse_url("http://10.0.0.1/", (ip_network("10.0.0.0/8"),)).port == 80
    assert ipaddress.ip_address(parse_url("https://[2606:4700::1]/x").host).version == 6
