"""Servers on raw sockets, for what no framework would do; a proxy; certificates of a made-up authority."""

import asyncio
import base64
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes


@dataclass
class Peer:
    """One connection, as the server sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "Server"

    async def head(self) -> Request:
        """Read the head of the next request. Raises IncompleteReadError at the end of the connection."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = text.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
        request = Request(line, headers, b"")
        self.server.requests.append(request)
        return request

    async def request(self) -> Request:
        """Read the next request."""
        request = await self.head()
        request.body = await self.reader.readexactly(int(request.headers.get("content-length", 0)))
        return request

    def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def hung_up(self) -> int:
        """Wait until the client has closed the connection. Returns how many bytes came before."""
        size = 0
        with suppress(ConnectionError):
            while piece := await self.reader.read(65536):
                size += len(piece)
        return size


@dataclass
class Server:
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    def url(self, path: str = "/", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def serving(
    handle: Callable[[Peer], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Calls `handle` for each connection, and closes the connection when it returns."""
    server = Server()
    handling: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        handling.add(task)
        peer = Peer(reader, writer, server)
        server.peers.append(peer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(peer)
                await writer.drain()
        finally:
            handling.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(handling):
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)


async def answering(peer: Peer) -> None:
    """Answer every request with an empty object."""
    while True:
        await peer.request()
        peer.answer(b"{}")


async def forwarding(peer: Peer) -> None:
    """A proxy: CONNECT, or one plain request, to the port that is asked for."""
    request = await peer.head()
    method, target, _ = request.line.split(" ")
    if method == "CONNECT":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
        peer.writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
    else:
        authority, _, path = target.removeprefix("http://").partition("/")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(authority.rpartition(":")[2]))
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        writer.write(f"{method} /{path} HTTP/1.1\r\n{headers}\r\n".encode())
    try:
        await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))
    finally:
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


class Authority:
    """An authority of nobody's trust, and what it has signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made up")])
        self.certificate = folder / "authority.pem"
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        signed = (
            _certificate(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def server(self, host: str) -> ssl.SSLContext:
        """Returns the context of a server that proves to be `host`, a name or an address."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        signed = (
            _certificate(subject, self._name, key)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / "server.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def client(self) -> ssl.SSLContext:
        """Returns the context of a client that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.certificate)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
