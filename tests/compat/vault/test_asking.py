"""What a request in the Vault dialect asks, before anything is looked up."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.compat.vault import durations
from keyturn.compat.vault.answers import ENVELOPE, NOTHING, Answer, RefusedAs, from_envelope, refusal
from keyturn.compat.vault.asking import Ask, flag, path_of, query_of, token_of, verb_of
from keyturn.compat.vault.bodies import MetadataBody, VersionsBody
from keyturn.compat.vault.routing import Routes
from keyturn.compat.vault.tokens import LEAST_SCOPES, policies_of, scopes_of
from keyturn.compat.vault.translation import describe, numbers, words
from keyturn.errors import (
    CapError,
    ConflictError,
    ForbiddenError,
    InputError,
    KeyturnError,
    StorageError,
    ThrottledError,
    TooLargeError,
    UnauthenticatedError,
    not_found,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def scope_of(raw: bytes, query: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()) -> dict[str, Any]:
    return {"raw_path": raw, "path": raw.decode("latin-1"), "query_string": query, "headers": headers}


def ask_of(**body: Any) -> Ask:
    return Ask("write", "x", {}, {}, body, None, None, "req_1")


# --- paths, queries, verbs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/v1/secret/data/api-keys/payment-gateway", "secret/data/api-keys/payment-gateway"),
        (b"/v1/secret/metadata/", "secret/metadata"),
        (b"/v1/secret/data/team%40example/a%2Bb", "secret/data/team@example/a+b"),
        (b"/v1/secret/data/%C3%A9", "secret/data/é"),
    ],
)
def test_a_path_is_decoded_once(raw: bytes, path: str) -> None:
    assert path_of(scope_of(raw)) == path


@pytest.mark.parametrize(
    "raw",
    [
        b"/v1/secret/data/a%2Fb",
        b"/v1/secret/data/a%2fb",
        b"/v1/secret/data/a%5Cb",
        b"/v1/secret/data/../../sys/health",
        b"/v1/secret/data/%2e%2e/b",
        b"/v1/secret/data/./b",
        b"/v1/secret//data/b",
        b"/v1/secret/data/a%00b",
        b"/v1/secret/data/a%zzb",
        b"/v1/secret/data/%ff",
        b"/v1%2Fsys/health",
        b"/v1/secret/data/" + b"a" * 9000,
    ],
)
def test_a_path_over_which_servers_could_disagree_is_refused(raw: bytes) -> None:
    """A path that reads as another after one more decoding must not reach a rule about paths."""
    with pytest.raises(InputError):
        path_of(scope_of(raw))


def test_both_ways_to_list_are_one() -> None:
    assert verb_of("LIST", {}) == "list"
    assert [verb_of("GET", {"list": text}) for text in ("true", "True", "1")] == ["list"] * 3
    assert [verb_of("GET", {"list": "false"}), verb_of("GET", {})] == ["read", "read"]
    assert verb_of("POST", {"list": "true"}) == verb_of("PUT", {}) == "write"
    assert verb_of("SCAN", {}) is None


def test_a_word_of_the_query_is_read_strictly_and_the_first_counts() -> None:
    assert query_of(scope_of(b"/v1/x", b"version=2&version=3&list=")) == {"version": "2", "list": ""}
    with pytest.raises(InputError, match="list"):
        flag({"list": "yes please"}, "list")
    with pytest.raises(InputError):
        query_of(scope_of(b"/v1/x", b"version=%ff"))
    with pytest.raises(InputError):
        query_of(scope_of(b"/v1/x", b"&".join(b"a%d=1" % n for n in range(100))))
    with pytest.raises(InputError, match="version"):
        Ask("read", "x", {}, {"version": "-1"}, {}, None, None, "req_1").number("version")


def test_a_token_comes_in_either_header() -> None:
    given: tuple[tuple[tuple[bytes, bytes], ...], ...] = (
        ((b"x-vault-token", b"kt_x"),),
        ((b"authorization", b"Bearer kt_x"),),
        ((b"authorization", b"Basic eDp5"), (b"x-vault-token", b"kt_x")),
    )
    for headers in given:
        found = token_of(scope_of(b"/v1/x", headers=headers))
        assert found is not None
        assert found.reveal() == "kt_x"
    assert token_of(scope_of(b"/v1/x")) is None
    for one in ((b"x-vault-token", b""), (b"authorization", b"Basic eDp5"), (b"x-vault-token", b"\xff")):
        assert token_of(scope_of(b"/v1/x", headers=(one,))) is None


@pytest.mark.parametrize(("name", "value"), [(b"x-vault-token", b"kt_x"), (b"authorization", b"Bearer kt_x")])
def test_two_tokens_are_none(name: bytes, value: bytes) -> None:
    """A proxy that checks the one and passes on both does not let the other through."""
    assert token_of(scope_of(b"/v1/x", headers=((name, value), (name, value)))) is None


# --- routes ------------------------------------------------------------------------------------------------------


async def nothing(_ask: Ask) -> Answer:
    return NOTHING


def test_words_of_a_template_win_over_names() -> None:
    routes = Routes(
        (
            {"sys/leases/lookup": {"write": nothing}, "sys/leases/lookup/{prefix*}": {"list": nothing}},
            {"{mount}/data/{path*}": {"read": nothing}, "auth/{method}/login": {"write": nothing}},
            {"auth/token/{word}": {"read": nothing}, "auth/{method}/role/{role}": {"read": nothing}},
        ),
        lambda template: template.endswith("login"),
    )

    def found(path: str) -> tuple[str, dict[str, str]] | None:
        match = routes.find(path)
        return None if match is None else (match[0].template, match[1])

    assert found("secret/data/a/b") == ("{mount}/data/{path*}", {"mount": "secret", "path": "a/b"})
    assert found("secret/data") == ("{mount}/data/{path*}", {"mount": "secret", "path": ""})
    assert found("sys/leases/lookup") == ("sys/leases/lookup", {})
    assert found("sys/leases/lookup/db/creds") == ("sys/leases/lookup/{prefix*}", {"prefix": "db/creds"})
    assert found("auth/token/lookup-self") == ("auth/token/{word}", {"word": "lookup-self"})
    assert found("auth/jwt/login") == ("auth/{method}/login", {"method": "jwt"})
    assert [found(path) for path in ("sys/data/x", "auth/data/x", "secret/other/x", "")] == [None] * 4
    assert {route.label for route in routes.all if route.is_open} == {"/v1/auth/{method}/login"}


# --- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (300, 300),
        ("300", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("0s", 0),
        ("1.5h", 5400),
        ("90s", 90),
        (None, None),
        ("", None),
    ],
)
def test_a_duration_is_a_number_or_gos_words(given: object, seconds: int | None) -> None:
    assert durations.seconds(given, "ttl") == seconds


@pytest.mark.parametrize("given", ["5 minutes", "-1s", -1, True, "1y", [], "9" * 60, float("nan"), 1e300, "1h-30m"])
def test_anything_else_is_no_duration(given: object) -> None:
    with pytest.raises(InputError, match="ttl"):
        durations.seconds(given, "ttl")


@pytest.mark.parametrize(("amount", "text"), [(None, "0s"), (0, "0s"), (90, "1m30s"), (3600, "1h0m0s"), (59, "59s")])
def test_a_duration_is_shown_as_go_shows_it(amount: int | None, text: str) -> None:
    assert durations.shown(amount) == text


def test_versions_come_as_numbers_or_as_text() -> None:
    assert numbers([1, 2, 2]) == [1, 2]
    assert numbers(["1", "2,3"]) == [1, 2, 3]
    assert numbers("4,5") == [4, 5]
    assert numbers(6) == [6]
    assert ask_of(versions=["1", 2]).fields(VersionsBody).versions == ["1", 2]
    for text in ("x", "-1", "", "1" * 11):
        with pytest.raises(InputError, match="versions"):
            numbers([text])


def test_metadata_changes_what_is_given_and_nothing_else() -> None:
    body = {"max_versions": 3, "custom_metadata": {"managed-by": "external-secrets", "tries": 2}}
    told = describe(ask_of(**body).fields(MetadataBody), body)
    assert (told.versions_max, told.metadata) == (3, {"managed-by": "external-secrets", "tries": "2"})
    assert told == describe(ask_of(**body).fields(MetadataBody), body)
    assert "UNSET" in repr(told.delete_after_seconds)
    merged = {"custom_metadata": {"a": None, "b": "2"}}
    held = describe(ask_of(**merged).fields(MetadataBody), merged, merged_into={"a": "1", "c": "3"})
    assert held.metadata == {"b": "2", "c": "3"}
    cleared = {"delete_version_after": "0s"}
    assert describe(ask_of(**cleared).fields(MetadataBody), cleared).delete_after_seconds is None


def test_a_field_of_the_wrong_kind_is_named() -> None:
    with pytest.raises(InputError, match="max_versions") as caught:
        ask_of(max_versions={"a": 1}).fields(MetadataBody)
    assert caught.value.field == "max_versions"


def test_the_policy_default_alone_gives_next_to_nothing() -> None:
    """Asking for the least must never give a token without bounds."""
    assert scopes_of(["default"]) == LEAST_SCOPES
    assert scopes_of(["default", "secret.read"]) == ("secret.read",)
    assert scopes_of([]) == ()
    assert policies_of(()) == ["default"]
    assert words("a, b,,a") == ["a", "b"]


# --- answers -----------------------------------------------------------------------------------------------------


def test_the_envelope_has_every_name_and_survives_being_wrapped() -> None:
    answer = Answer(data={"a": 1}, lease_id="db/creds/r/x", lease_duration=60, renewable=True, warnings=("w",))
    held = answer.envelope("req_1")
    assert set(held) == ENVELOPE
    assert from_envelope(held) == answer
    assert from_envelope({"secret_id": "x"}) == Answer(data={"secret_id": "x"})
    assert NOTHING.body("req_1") == b""
    assert NOTHING.warned("careful").status == 200


@pytest.mark.parametrize(
    ("error", "status", "messages"),
    [
        (UnauthenticatedError("no"), 403, ("permission denied",)),
        (ForbiddenError("p may not"), 403, ("permission denied", "p may not")),
        (not_found("secret", "x"), 404, ()),
        (InputError("bad", field="x"), 400, ("bad",)),
        (TooLargeError("big"), 413, ("big",)),
        (ConflictError("state"), 400, ("state",)),
        (CapError("full"), 429, ("full",)),
        (ThrottledError("slow", retry_after_seconds=3), 429, ("slow",)),
        (StorageError("gone", hint="try again"), 503, ("gone (try again)",)),
        (RefusedAs(404), 404, ()),
        (KeyturnError("inner"), 500, ("internal error",)),
        (ZeroDivisionError("inner"), 500, ("internal error",)),
    ],
)
def test_an_error_has_the_status_that_clients_expect(error: Exception, status: int, messages: tuple[str, ...]) -> None:
    assert refusal(error) == (status, messages)


# --- whatever is sent --------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_no_path_is_anything_but_read_or_refused(raw: bytes) -> None:
    try:
        path = path_of(scope_of(b"/v1/" + raw))
    except InputError:
        return
    assert not {"", ".", ".."} & set(path.split("/")[:-1])
    assert "\0" not in path


@given(st.binary(max_size=100))
def test_no_query_is_anything_but_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InputError):
        query_of(scope_of(b"/v1/x", raw))


@given(st.one_of(st.text(max_size=80), st.integers(), st.floats(), st.none(), st.booleans()))
def test_no_duration_is_anything_but_seconds_or_refused(value: object) -> None:
    with contextlib.suppress(InputError):
        found = durations.seconds(value, "ttl")
        assert found is None or 0 <= found <= durations.SECONDS_MAX


@given(st.dictionaries(st.sampled_from(["max_versions", "cas_required", "custom_metadata", "x"]), JSON, max_size=4))
def test_no_body_is_anything_but_read_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(InputError):
        describe(ask_of(**body).fields(MetadataBody), body)
