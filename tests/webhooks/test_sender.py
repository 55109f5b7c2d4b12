"""One attempt over real connections: pinned, bounded, and never where the guard does not want it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from keyturn.webhooks.sender import HttpSender
from tests.listening import listening

ALLOWED = (ip_network("127.0.0.0/8"),)
HEADERS = [("webhook-id", "msg_1"), ("content-type", "application/json")]
NAME = "hooks.example.com"


@dataclass
class Names:
    """A resolver that answers what a test says, one list for each time it is asked."""

    answers: list[list[str]]
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@dataclass
class Site:
    """A server on loopback that keeps what it was sent and answers raw bytes."""

    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    hangs: bool = False
    endless: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            self.requests.append(head + await reader.readexactly(length))
            if self.hangs:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
            while self.endless:
                writer.write(b"x" * 65536)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def opened(site: Site, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    async with listening(site.serve, tls) as site.port:
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with opened(Site()) as one:
        yield one


async def test_a_message_arrives_as_it_was_given(site: Site) -> None:
    names = Names([["127.0.0.1"]])
    sender = HttpSender(ALLOWED, resolver=names)
    answer = await sender.send(f"http://{NAME}:{site.port}/in?kind=keys", HEADERS, b'{"a":1}')
    assert (answer.status, answer.error) == (204, None)
    (request,) = site.requests
    assert request.startswith(b"POST /in?kind=keys HTTP/1.1\r\n")
    assert f"Host: {NAME}:{site.port}".encode() in request
    assert b"webhook-id: msg_1" in request
    assert request.endswith(b'\r\n\r\n{"a":1}')
    assert names.asked == [(NAME, site.port)]


async def test_a_name_that_leads_inside_is_refused(site: Site) -> None:
    """No connection is made, whatever else the name also leads to."""
    for answers in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]):
        answer = await HttpSender(resolver=Names([answers])).send(f"https://{NAME}:{site.port}/", HEADERS, b"{}")
        assert answer.status is None
        assert (answer.error or "").startswith("refused: ")
    assert site.requests == []


async def test_a_name_that_is_bound_anew_is_checked_again_at_each_attempt(site: Site) -> None:
    """DNS rebinding: an answer that was good once is not good for the next attempt."""
    names = Names([["127.0.0.1"], ["10.0.0.1"]])
    sender = HttpSender(ALLOWED, resolver=names)
    url = f"http://{NAME}:{site.port}/"
    assert (await sender.send(url, HEADERS, b"{}")).status == 204
    second = await sender.send(url, HEADERS, b"{}")
    assert (second.status, second.error) == (None, "refused: the name leads to an address that is private")
    assert len(site.requests) == 1
    assert len(names.asked) == 2


async def test_one_attempt_resolves_once_and_connects_to_what_was_checked(site: Site) -> None:
    """Between the check and the connection there is no second look-up that could answer differently."""
    names = Names([["127.0.0.1"], ["10.0.0.1"]])
    answer = await HttpSender(ALLOWED, resolver=names).send(f"http://{NAME}:{site.port}/", HEADERS, b"{}")
    assert answer.status == 204
    assert len(names.asked) == 1


async def test_every_spelling_of_loopback_is_refused(site: Site) -> None:
    """What the system's resolver makes of odd spellings is checked like any other answer."""
    sender = HttpSender()
    for host in ("localhost", "127.1", "0x7f000001", "2130706433", "0"):
        answer = await sender.send(f"https://{host}:{site.port}/", HEADERS, b"{}")
        assert answer.status is None
    assert site.requests == []


async def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt ends in time, and the thread that still waits holds nobody up."""
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answered.wait(120)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    answer = await HttpSender(seconds=0.1).send(f"https://{NAME}/", HEADERS, b"{}")
    answered.set()
    assert (answer.status, answer.error) == (None, "no answer within 0.1 s")
    for thread in threading.enumerate():
        if thread.name == "webhook-resolver":
            assert thread.daemon
            await asyncio.to_thread(thread.join, 5)


async def test_a_redirect_is_not_followed(site: Site) -> None:
    site.answer = (
        f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{site.port}/inside\r\nContent-Length: 0\r\n\r\n".encode()
    )
    answer = await HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]])).send(
        f"http://{NAME}:{site.port}/", HEADERS, b"{}"
    )
    assert (answer.status, answer.error) == (302, "answered 302, a redirect, which is not followed")
    assert len(site.requests) == 1


async def test_a_proxy_of_the_environment_is_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name itself, past the guard."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    sender = HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]]))
    assert (await sender.send(f"http://{NAME}:{site.port}/", HEADERS, b"{}")).status == 204


async def test_an_answer_without_end_is_cut_off(site: Site) -> None:
    site.answer = b"HTTP/1.1 500 Oops\r\nContent-Length: 99999999999\r\n\r\n"
    site.endless = True
    answer = await HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]])).send(
        f"http://{NAME}:{site.port}/", HEADERS, b"{}"
    )
    assert answer.status == 500
    assert answer.excerpt is not None
    assert len(answer.excerpt) <= 256


async def test_who_does_not_answer_is_given_up(site: Site) -> None:
    site.hangs = True
    sender = HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]]), seconds=0.2)
    answer = await sender.send(f"http://{NAME}:{site.port}/", HEADERS, b"{}")
    assert (answer.status, answer.error) == (None, "no answer within 0.2 s")


async def test_what_is_no_http_is_a_failure(site: Site) -> None:
    site.answer = b"SSH-2.0-OpenSSH\r\n"
    answer = await HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]])).send(
        f"http://{NAME}:{site.port}/", HEADERS, b"{}"
    )
    assert answer.status is None
    assert (answer.error or "").startswith("the connection failed")


async def test_another_address_is_tried_when_one_refuses(site: Site) -> None:
    names = Names([["127.0.0.2", "127.0.0.1"]])
    answer = await HttpSender(ALLOWED, resolver=names).send(f"http://{NAME}:{site.port}/", HEADERS, b"{}")
    assert answer.status == 204


async def test_a_certificate_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    """TLS is for the name of the endpoint, although the connection goes to a pinned address."""
    certificate, key = certify(NAME, tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(certificate))
    async with opened(Site(), server_side) as site:
        sender = HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]]), tls=client_side)
        assert (await sender.send(f"https://{NAME}:{site.port}/", HEADERS, b"{}")).status == 204
        other = await sender.send(f"https://other.example.com:{site.port}/", HEADERS, b"{}")
        assert other.status is None
        assert (other.error or "").startswith("the certificate is not trusted")
        strange = HttpSender(ALLOWED, resolver=Names([["127.0.0.1"]]))
        unknown = await strange.send(f"https://{NAME}:{site.port}/", HEADERS, b"{}")
        assert (unknown.error or "").startswith("the certificate is not trusted")


def certify(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a certificate that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
