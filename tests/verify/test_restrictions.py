import ipaddress
import re
from typing import Any, Literal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.verify.model import Request
from keyturn.verify.networks import Networks, parse_network
from keyturn.verify.origins import Origins, origin_of, parse_origin
from keyturn.verify.paths import Endpoints, normal_path, parse_methods, parse_path
from keyturn.verify.restrictions import ENTRIES_MAX, check_restrictions, compile_restrictions
from keyturn.wire.policy import MethodPath, Restrictions


def allow_ip(cidr: str, *ips: str) -> list[tuple[str, str, bool]]:
    return [(cidr, ip, True) for ip in ips]


def deny_ip(cidr: str, *ips: str) -> list[tuple[str, str, bool]]:
    return [(cidr, ip, False) for ip in ips]


NETWORKS = [
    *allow_ip("10.0.0.0/8", "10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3", "::ffff:a01:203"),
    *deny_ip("10.0.0.0/8", "9.255.255.255", "11.0.0.0", "::10.1.2.3", "2001:db8::1"),
    *allow_ip("192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7"),
    *deny_ip("192.0.2.7", "192.0.2.8"),
    *allow_ip("0.0.0.0/0", "1.2.3.4", "::ffff:1.2.3.4"),
    *deny_ip("0.0.0.0/0", "::1"),
    *allow_ip("2001:db8::/32", "2001:db8::1", "2001:DB8:ffff::"),
    *deny_ip("2001:db8::/32", "2001:db9::", "10.0.0.1"),
    *allow_ip("::/0", "::1"),
    *deny_ip("::/0", "1.2.3.4", "::ffff:1.2.3.4"),
    *allow_ip("::ffff:10.0.0.0/104", "10.1.2.3", "::ffff:10.1.2.3"),
    *allow_ip("::ffff:192.0.2.7", "192.0.2.7"),
    *allow_ip("::1", "::1", "0:0:0:0:0:0:0:1"),
    # What is not an address lies nowhere.
    *deny_ip("0.0.0.0/0", "", " 1.2.3.4", "1.2.3.4 ", "1.2.3", "01.2.3.4", "1.2.3.4/32", "1.2.3.4:80", "0x1020304"),
    *deny_ip("0.0.0.0/0", "1.2.3.4\x00", "1.2.3.4, 10.0.0.1", "\u0661.2.3.4", "\ud800", "256.1.1.1"),
    *deny_ip("::/0", "fe80::1%eth0", "[::1]", "::1/128", ":", ":::", "1::2::3", "::\ud800", "::1\x00"),
]


@pytest.mark.parametrize(("cidr", "ip", "inside"), NETWORKS)
def test_addresses(cidr: str, ip: str, inside: bool) -> None:  # noqa: FBT001 -- a table
    assert Networks([parse_network(cidr)]).contain(ip) is inside


def test_an_address_that_was_not_told_lies_nowhere() -> None:
    assert not Networks([parse_network("0.0.0.0/0"), parse_network("::/0")]).contain(None)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def _unmapped(ip: Address) -> Address:
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _within(ip: Address, cidr: Net) -> bool:
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    if isinstance(cidr, ipaddress.IPv6Network) and cidr.prefixlen >= 96 and cidr.network_address in mapped:
        cidr = ipaddress.ip_network((int(cidr.network_address) & 0xFFFFFFFF, cidr.prefixlen - 96))
    return cidr.version == ip.version and ip in cidr


def _networks(version: Literal[4, 6], bits: int) -> st.SearchStrategy[Net]:
    return st.builds(
        lambda address, length: ipaddress.ip_network((address, length), strict=False),
        st.ip_addresses(v=version),
        st.integers(0, bits),
    )


@given(cidrs=st.lists(st.one_of(_networks(4, 32), _networks(6, 128)), max_size=6), ip=st.ip_addresses())
def test_membership_agrees_with_the_standard_library(cidrs: list[Net], ip: Address) -> None:
    expected = any(_within(_unmapped(ip), cidr) for cidr in cidrs)
    assert Networks(parse_network(str(cidr)) for cidr in cidrs).contain(str(ip)) is expected


@given(st.text(max_size=40))
def test_no_text_is_an_address_to_us_that_is_none_to_the_standard_library(text: str) -> None:
    everything = Networks([parse_network("0.0.0.0/0"), parse_network("::/0")])
    if everything.contain(text):
        ipaddress.ip_address(text)


# --- origins ---------------------------------------------------------------------------------------------------------


def allow_origin(pattern: str, *urls: str) -> list[tuple[str, str, bool]]:
    return [(pattern, url, True) for url in urls]


def deny_origin(pattern: str, *urls: str) -> list[tuple[str, str, bool]]:
    return [(pattern, url, False) for url in urls]


EXACT = "https://app.example.com"
WILD = "https://*.example.com"
ORIGINS = [
    *allow_origin(EXACT, EXACT, EXACT + "/", EXACT + "/a/b?c=d#e", EXACT + ":443", EXACT + "?x", EXACT + "#x"),
    *allow_origin(EXACT, "HTTPS://APP.Example.COM", "https://app.example.com./x", EXACT + ":0443/"),
    *deny_origin(EXACT, "http://app.example.com", EXACT + ":8443", "https://example.com", "https://x.app.example.com"),
    *deny_origin(EXACT, EXACT + ".evil.com", "https://evil.com/" + EXACT, "https://evil.com#" + EXACT),
    *deny_origin(EXACT, "https://app.example.com@evil.com", "https://evil.com\\.app.example.com"),
    *deny_origin(EXACT, "https://user@app.example.com", "https://user:pw@app.example.com/", EXACT + ":", EXACT + ":x"),
    *deny_origin(EXACT, "//app.example.com", "app.example.com", "null", "", " " + EXACT, EXACT + "\n", EXACT + " "),
    *deny_origin(EXACT, "https://app.example.com\x00", "https://\uff41pp.example.com", "https://app..example.com"),
    *deny_origin(
        EXACT, "https:/app.example.com", "https:app.example.com", EXACT + "\\@evil.com", EXACT + "..", "\ud800"
    ),
    *allow_origin(WILD, "https://a.example.com", "https://A-1.EXAMPLE.com/path", "https://a.example.com.:443"),
    *deny_origin(
        WILD, "https://example.com", "https://a.b.example.com", "http://a.example.com", "https://.example.com"
    ),
    *deny_origin(WILD, "https://aexample.com", "https://a.example.com.evil.com", "https://*.example.com", WILD + "/x"),
    *deny_origin(WILD, "https://evil.com/.example.com", "https://evil.com?.example.com", "https://a.example.org"),
    *allow_origin("https://*.*.example.com", "https://a.b.example.com"),
    *deny_origin("https://*.*.example.com", "https://a.example.com"),
    *allow_origin("http://localhost:3000", "http://localhost:3000", "http://LOCALHOST:3000/x"),
    *deny_origin("http://localhost:3000", "http://localhost", "http://localhost:3001"),
    *allow_origin("http://localhost:80/", "http://localhost"),
    *allow_origin("https://[2001:DB8:0::1]", "https://[2001:db8::1]/x", "https://[2001:db8:0:0::1]:443"),
    *deny_origin("https://[2001:db8::1]", "https://[2001:db8::2]", "https://2001:db8::1", "https://[::zz]"),
    *allow_origin("chrome-extension://abcdef", "chrome-extension://abcdef", "chrome-extension://abcdef/page.html"),
]


@pytest.mark.parametrize(("pattern", "url", "allowed"), ORIGINS)
def test_origins(pattern: str, url: str, allowed: bool) -> None:  # noqa: FBT001 -- a table
    assert Origins([parse_origin(pattern)]).contain(url) is allowed


def test_an_origin_that_was_not_told_is_not_allowed() -> None:
    assert not Origins([parse_origin(EXACT)]).contain(None)


@given(st.from_regex(r"[a-z]{1,5}://[A-Za-z0-9.@:\\*-]{0,20}([/?#].{0,10})?", fullmatch=True))
def test_a_reduced_origin_is_its_own_origin(url: str) -> None:
    origin = origin_of(url)
    if origin is not None:
        assert origin_of(origin) == origin
        assert parse_origin(origin) == origin
        assert origin_of(origin + "/anything") == origin


# --- paths -----------------------------------------------------------------------------------------------------------


def allow_path(pattern: str, *paths: str) -> list[tuple[str, str, bool]]:
    return [(pattern, path, True) for path in paths]


def deny_path(pattern: str, *paths: str) -> list[tuple[str, str, bool]]:
    return [(pattern, path, False) for path in paths]


PATHS = [
    *allow_path("/orders", "/orders", "/orders?x=/../y", "/%6Frders", "/orders?"),
    *deny_path("/orders", "/orders/", "/Orders", "/orders/7", "/order", "orders", "", "/"),
    *allow_path("/", "/", "/?x"),
    *deny_path("/", "", "/a"),
    *allow_path(
        "/orders/*", "/orders/7", "/orders/7/items", "/orders/7/", "/orders/a%20b", "/orders/a.b", "/orders/7;v=1"
    ),
    *deny_path("/orders/*", "/orders", "/orders/", "/ordersx/7"),
    *allow_path("/orders/**", "/orders/7", "/orders/7/items"),
    *deny_path("/orders/**", "/orders", "/orders/"),
    *allow_path("/*/items", "/7/items", "/a:b/items"),
    *deny_path("/*/items", "/items", "/7/8/items", "/7/items/1", "//items"),
    *allow_path("/carts/*/items/*", "/carts/7/items/1", "/carts/7/items/1/2"),
    *allow_path("/*", "/a", "/a/b"),
    *deny_path("/*", "/"),
    *allow_path("/a b", "/a%20b", "/a b"),
    *allow_path("/a%20b", "/a%20b"),
    *allow_path("/%2A", "/*", "/%2a"),
    *deny_path("/%2A", "/x"),
    *allow_path("/caf\u00e9", "/caf%C3%A9", "/caf\u00e9"),
    *allow_path("/100%25", "/100%25"),
    *deny_path("/a", "/%2561"),
    # Over these two servers may disagree, so they match nothing.
    *deny_path("/files/*", "/files/..", "/files/../admin", "/files/.", "/files/./a", "/files/a/..", "/files/..;/admin"),
    *deny_path(
        "/files/*", "/files/%2e%2e/admin", "/files/%2E./admin", "/files/.%2e", "/files/..;x=1/a", "/files/%2e%2e;/a"
    ),
    *deny_path("/files/*", "/files//a", "//files/a", "/files/a//", "/files/a%2Fb", "/files/a%2fb", "/files/a%5Cb"),
    *deny_path("/files/*", "/files/a\\b", "/files/a\x00", "/files/a%00", "/files/a%0A", "/files/a\n", "/files/%7f"),
    *deny_path(
        "/files/*", "/files/%", "/files/%2", "/files/%zz", "/files/%c0%ae", "/files/%ff", "/files/a#b", "/files/\ud800"
    ),
    *deny_path("/files/*", "/files/%252e%252e/admin", "/files/%252f", "/files/%255c", "/files/%2500", "/files/%C2%85"),
    *allow_path(
        "/files/*", "/files/%2541", "/files/a%23b", "/files/a%3Fb", "/files/...", "/files/.hidden", "/files/..a"
    ),
    *deny_path("/files/*", "http://x/files/a", "*", "?", "/files/" + "a" * 9000),
]


@pytest.mark.parametrize(("pattern", "path", "allowed"), PATHS)
def test_paths(pattern: str, path: str, allowed: bool) -> None:  # noqa: FBT001 -- a table
    endpoints = Endpoints([(parse_methods(("GET",)), parse_path(pattern))])
    assert endpoints.contain("GET", path) is allowed


def test_methods_compare_without_case_and_imply_nothing() -> None:
    endpoints = Endpoints(
        [(parse_methods(("get", "POST")), parse_path("/a")), (parse_methods(("*",)), parse_path("/b"))]
    )
    assert endpoints.contain("GET", "/a")
    assert endpoints.contain("post", "/a")
    assert not endpoints.contain("HEAD", "/a")
    assert endpoints.contain("PATCH", "/b")
    assert not endpoints.contain("po\u017ft", "/a")
    assert not endpoints.contain(None, "/b")
    assert not endpoints.contain("GET", None)
    assert not endpoints.contain("", "/a")


def test_a_pair_is_not_split_into_any_method_on_any_path() -> None:
    """Two endpoints allow two combinations, not four."""
    endpoints = Endpoints([(parse_methods(("GET",)), parse_path("/a")), (parse_methods(("POST",)), parse_path("/b"))])
    assert not endpoints.contain("POST", "/a")
    assert not endpoints.contain("GET", "/b")


_SEGMENTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8)


@given(st.lists(_SEGMENTS, min_size=1, max_size=5), st.booleans())
def test_a_path_compares_equal_however_it_is_percent_encoded(segments: list[str], everything: bool) -> None:  # noqa: FBT001
    plain = "/" + "/".join(segments)
    encoded = "/" + "/".join(
        "".join(f"%{byte:02x}" for byte in segment.encode()) if everything else quote(segment, safe="")
        for segment in segments
    )
    normal = normal_path(encoded)
    unsafe = any(re.search(r"[/\\]", s) or s.partition(";")[0] in {".", ".."} for s in segments)
    if unsafe:
        assert normal is None
    elif "%" not in plain:
        assert normal == plain


@given(st.text(alphabet="/.%25eEfFaA;\\\x00?#*\u00e9", max_size=30))
def test_no_normal_path_holds_anything_two_servers_could_disagree_over(path: str) -> None:
    normal = normal_path(path)
    if normal is not None:
        assert normal.startswith("/")
        assert not re.search(r"//|\\|[\x00-\x1f]", normal)
        assert not {".", ".."} & set(normal.split("/"))


# --- writing ---------------------------------------------------------------------------------------------------------

GET_A = MethodPath(("GET",), "/a")
WRONG: list[tuple[Restrictions, str]] = [
    *(
        (Restrictions(cidrs=("10.0.0.0/8", cidr)), "restrictions.cidrs[1]")
        for cidr in (
            "",
            "x",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/255.0.0.0",
            "10.0.0",
            "010.0.0.0/8",
            "2001:db8::/129",
            "2001:db8::1/32",
            "fe80::1%eth0",
            "10.0.0.0/\u0668",
            "10.0.0.0/8\n",
            "*",
        )
    ),
    *(
        (Restrictions(origins=(origin,)), "restrictions.origins[0]")
        for origin in (
            "",
            "*",
            "example.com",
            "https://",
            "https://*",
            "https://*.com",
            "https://a*.example.com",
            "https://a.*.example.com",
            "https://*a.example.com",
            "https://example.com/path",
            "https://example.com?x",
            "https://u@example.com",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com:*",
            "*://example.com",
            "https://ex\u00e4mple.com",
            "https://example.com\n",
            "null",
            "https://" + "a." * 2000 + "com",
        )
    ),
    *(
        (Restrictions(endpoints=(GET_A, MethodPath(("GET",), path))), "restrictions.endpoints[1].path")
        for path in (
            "",
            "a",
            "*",
            "//",
            "/a//b",
            "//*",
            "/a/../b",
            "/.",
            "/%2e%2e",
            "/a%2Fb",
            "/a\\b",
            "/a\x00",
            "/%",
            "/a?b",
            "/a#b",
            "/a*",
            "/**/b",
            "/a/***",
            "/" + "a" * 2000,
        )
    ),
    *(
        (Restrictions(endpoints=(MethodPath(methods, "/a"),)), "restrictions.endpoints[0].methods")
        for methods in ((), ("",), ("G ET",), ("GET", "P\u00d6ST"), ("GET\n",), ("G" * 40,), ("**",))
    ),
    (Restrictions(cidrs=("10.0.0.0/8",) * (ENTRIES_MAX + 1)), "restrictions.cidrs"),
    (Restrictions(endpoints=(GET_A,) * (ENTRIES_MAX + 1)), "restrictions.endpoints"),
]


@pytest.mark.parametrize(("restrictions", "field"), WRONG)
def test_a_wrong_entry_is_refused_by_the_name_of_its_field(restrictions: Restrictions, field: str) -> None:
    with pytest.raises(InputError) as caught:
        check_restrictions(restrictions)
    assert caught.value.field == field
    assert "expected" in caught.value.message


@pytest.mark.parametrize("restrictions", [row[0] for row in WRONG if row[1][-1] in "]sh"])
def test_what_is_refused_when_written_does_not_break_what_enforces(restrictions: Restrictions) -> None:
    checker = compile_restrictions(restrictions)
    assert checker is not None
    assert checker.failure(Request("x")) is not None


def test_what_is_accepted_when_written_can_be_enforced() -> None:
    restrictions = Restrictions(
        cidrs=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7"),
        origins=(EXACT, WILD, "http://localhost:3000"),
        endpoints=(GET_A, MethodPath(("*",), "/b/**")),
    )
    check_restrictions(restrictions)
    checker = compile_restrictions(restrictions)
    assert checker is not None
    good: dict[str, Any] = {"ip": "10.0.0.1", "origin": EXACT, "method": "GET", "path": "/a"}
    assert checker.failure(Request("x", **good)) is None
    for name, expected in (("ip", "cidr"), ("origin", "origin"), ("method", "endpoint"), ("path", "endpoint")):
        assert checker.failure(Request("x", **{key: value for key, value in good.items() if key != name})) == expected


def test_nothing_restricted_compiles_to_nothing() -> None:
    assert compile_restrictions(None) is None
    assert compile_restrictions(Restrictions()) is None
    check_restrictions(Restrictions())
