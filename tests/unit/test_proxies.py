"""Proxies on the way up: real ones, with passwords, over TLS, and such as look into everything."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import threading
from base64 import b64decode
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import uvicorn

from skerry.agent.loops.sync import Syncer
from skerry.carrier.app import carrier_app
from skerry.carrier.dialling import Dialling, check_dialling, parse_proxy, proxy_for, shown_proxy
from skerry.carrier.link import HEAD_BYTES, HttpLink, fetch_trust_root
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected, SkerryError, Unavailable, Untrusted
from skerry.ports.carrier_backend import Gone
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.waiting import eventually_sync
from tests.unit.carrier_backend import CONTENT, DIGEST, GOOD, REQUEST, Backend
from tests.unit.connect_proxy import ConnectProxy
from tests.unit.test_carrier_link import Certificates, served
from tests.unit.upstream import NOW, desired, identity, report_of

PASSWORD = "p_ss-w0rd"
VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1", "::1"], datetime.now(UTC))


@pytest.fixture(scope="module")
def upstream(certificates: Certificates) -> Iterator[tuple[Backend, str]]:
    backend = Backend()
    asyncio.run(backend.blobs.put(DIGEST, CONTENT))
    with served(backend, certificates) as url:
        yield backend, url


@pytest.fixture(scope="module")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Run tinyproxy with a password, and return its port and its log."""
    if shutil.which("tinyproxy") is None:
        pytest.skip("needs tinyproxy")
    folder = tmp_path_factory.mktemp("tinyproxy")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = int(door.getsockname()[1])
    config, log = folder / "tinyproxy.conf", folder / "log"
    config.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth edge {PASSWORD}\nLogFile "{log}"\nLogLevel Connect\n'
    )
    process = subprocess.Popen(["tinyproxy", "-d", "-c", str(config)])
    try:
        eventually_sync(lambda: _answers(port))
        yield port, log
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def by(url: str, ca_pem: str, dialling: Dialling | None = None) -> Generator[HttpLink]:
    link = HttpLink(url, ca_pem, dialling=dialling)
    try:
        yield link
    finally:
        link.close()


def test_everything_goes_by_a_real_proxy_with_a_password(
    upstream: tuple[Backend, str], certificates: Certificates, tinyproxy: tuple[int, Path]
) -> None:
    (_, url), (port, log) = upstream, tinyproxy
    dialling, counted = Dialling(proxy=f"http://edge:{PASSWORD}@127.0.0.1:{port}"), list[int]()
    with by(url, certificates.ca_pem, dialling) as link:
        link.on_traffic = counted.append
        assert link.sync(REQUEST).acknowledged == 7
        assert counted[0] == len(msgspec.json.encode(REQUEST)) + HEAD_BYTES + len(
            msgspec.json.encode(SyncAnswer(acknowledged=7))
        )
        for rate in (None, 1 << 20):
            with link.blob(DIGEST, offset=1000, token=GOOD, rate=rate) as chunks:
                assert b"".join(chunks) == CONTENT[1000:]
        assert link.proxy == f"http://127.0.0.1:{port}"
        link.reach()
    with pytest.raises(Untrusted) as caught:
        fetch_trust_root(url, digest_of(b"another"), dialling=dialling)
    assert caught.value.code == "trust_root.mismatch", "it came, by the proxy"
    assert log.read_text().count("CONNECT 127.0.0.1") >= 3


@pytest.mark.parametrize("credentials", ("", "edge:wrong@"))
def test_a_proxy_that_refuses_is_told_and_its_password_is_not(
    upstream: tuple[Backend, str], certificates: Certificates, tinyproxy: tuple[int, Path], credentials: str
) -> None:
    url, port = upstream[1], tinyproxy[0]
    dialling = Dialling(proxy=f"http://{credentials}127.0.0.1:{port}")
    for call in (
        lambda: fetch_trust_root(url, digest_of(b""), dialling=dialling),
        lambda: _sync(url, certificates.ca_pem, dialling),
    ):
        with pytest.raises(Unavailable) as caught:
            call()
        assert f"by the proxy http://127.0.0.1:{port}: Tunnel connection failed" in caught.value.message
        assert "wrong" not in _all_of(caught.value)


def _sync(url: str, ca_pem: str, dialling: Dialling | None = None) -> SyncAnswer:
    with by(url, ca_pem, dialling) as link:
        return link.sync(REQUEST)


def _all_of(error: BaseException | None) -> str:
    """Return all that a log could show of an error."""
    text = ""
    while error is not None:
        text += repr(error) + str(error) + str(getattr(error, "facts", ""))
        error = error.__cause__ or error.__context__
    return text


def test_closing_the_link_ends_a_call_that_waits_behind_a_proxy(
    certificates: Certificates, tinyproxy: tuple[int, Path]
) -> None:
    for how in ("close", "cut_waits"):
        backend, ended = Backend(), list[SkerryError]()
        with served(backend, certificates) as url:
            dialling = Dialling(proxy=f"http://edge:{PASSWORD}@127.0.0.1:{tinyproxy[0]}")
            with by(url, certificates.ca_pem, dialling) as link:

                def wait(link: HttpLink = link, ended: list[SkerryError] = ended) -> None:
                    with pytest.raises(Unavailable) as caught:
                        link.sync(msgspec.structs.replace(REQUEST, wait_s=200.0))
                    ended.append(caught.value)

                thread = threading.Thread(target=wait)
                thread.start()
                assert backend.waits.wait(20)
                getattr(link, how)()
                thread.join(10)
                assert ended
                if how == "cut_waits":
                    assert link.sync(REQUEST).acknowledged == 7, "the link can be used further"


def test_the_environment_names_a_proxy_as_it_does_for_other_programs(
    upstream: tuple[Backend, str], certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = upstream[1]
    with ConnectProxy().running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://a:b@127.0.0.1:{proxy.port}")
        assert _sync(url, certificates.ca_pem).acknowledged == 7
        assert proxy.authorizations == ["Proxy-Authorization: Basic YTpi"]
        assert _sync(url, certificates.ca_pem, Dialling(proxy="none")).acknowledged == 7
        monkeypatch.setenv("no_proxy", "example.com, 127.0.0.0/8")
        assert _sync(url, certificates.ca_pem).acknowledged == 7
        assert len(proxy.asked) == 1


def test_a_proxy_that_is_spoken_with_over_tls_is_known_by_its_certificate(
    upstream: tuple[Backend, str], certificates: Certificates
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    with ConnectProxy(tls=context).running() as proxy:
        address = f"https://127.0.0.1:{proxy.port}"
        with pytest.raises(SkerryError):
            _sync(upstream[1], certificates.ca_pem, Dialling(proxy=address))
        dialling = Dialling(proxy=address, ca_pem=certificates.ca_pem)
        with by(upstream[1], certificates.ca_pem, dialling) as link:
            assert link.sync(REQUEST).acknowledged == 7
        assert len(proxy.asked) == 1


class DesiringBackend(Backend):
    """One that has a desired state for whoever asks."""

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        self.syncs.append(request)
        newest = report_of(request.reports[-1])
        return SyncAnswer(acknowledged=newest.sequence, desired=desired(5))


@pytest.mark.rule("SYNC-2")
async def test_who_looks_into_a_connection_reads_it_and_can_alter_nothing_that_counts(
    certificates: Certificates, tmp_path: Path
) -> None:
    inspector, backend = ConnectProxy(tmp_path), DesiringBackend()
    proxy = f"http://127.0.0.1:{inspector.port}"
    with inspector.running(), served(backend, certificates) as url:
        with pytest.raises(Untrusted) as caught:
            await asyncio.to_thread(_sync, url, certificates.ca_pem, Dialling(proxy=proxy))
        assert caught.value.code == "link.tls", "nobody is believed without being told to"
        assert backend.syncs == []
        dialling = Dialling(proxy=proxy, ca_pem=inspector.ca_pem)
        with by(url, certificates.ca_pem, dialling) as link:
            made = Syncer(identity(), MemoryAgentStore(), link, SimulatedClock(NOW))
            inspector.alter = _swap_signature
            with pytest.raises(Untrusted):
                await made.exchange(0.0)
            assert _generation(made) == 0
            inspector.alter = lambda chunk: chunk
            await made.exchange(0.0)
            assert _generation(made) == 5
    assert b'"reports":[{"payload":' in inspector.seen, "it reads, and that is all"


def _generation(syncer: Syncer) -> int:
    return syncer.desired.generation if syncer.desired else 0


def _swap_signature(chunk: bytes) -> bytes:
    return re.sub(rb'("sig":")(.)', lambda m: m[1] + (b"A" if m[2] != b"A" else b"B"), chunk)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_upstream_and_a_proxy_may_be_named_by_ipv6_addresses(certificates: Certificates) -> None:
    try:
        door = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("needs IPv6")
    with door:
        config = uvicorn.Config(
            carrier_app(Backend()),
            ssl_keyfile=str(certificates.key),
            ssl_certfile=str(certificates.cert),
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        try:
            eventually_sync(lambda: server.started)
            url = f"https://[::1]:{door.getsockname()[1]}"
            assert _sync(url, certificates.ca_pem).acknowledged == 7
            with ConnectProxy().running() as proxy:
                dialling = Dialling(proxy=f"http://127.0.0.1:{proxy.port}")
                assert _sync(url, certificates.ca_pem, dialling).acknowledged == 7
                assert proxy.asked == [url.removeprefix("https://")]
        finally:
            server.should_exit = True
            thread.join()


CHOICES: list[tuple[dict[str, str], str]] = [
    ({}, ""),
    ({"https_proxy": "http://p:1"}, "http://p:1"),
    ({"HTTPS_PROXY": "p:1"}, "http://p:1"),
    ({"all_proxy": "http://p"}, "http://p:80"),
    ({"https_proxy": "https://p", "ALL_PROXY": "http://q"}, "https://p:443"),
    ({"http_proxy": "http://p:1"}, ""),
    ({"https_proxy": "http://[fd00::1]:3128"}, "http://[fd00::1]:3128"),
    *(
        ({"https_proxy": "http://p:1", "no_proxy": exempt}, "")
        for exempt in (
            "*", "hub.plant.example", "plant.example", ".plant.example", "*.plant.example", "a,HUB.Plant.Example:8443",
            "a b plant.example",
        )
    ),
    *(
        ({"https_proxy": "http://p:1", "NO_PROXY": exempt}, "http://p:1")
        for exempt in ("", ",", "ant.example", "hub", "hub.plant.example:1", "10.0.0.0/8", ".")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "expected"), CHOICES)
def test_which_proxy_is_taken(environ: dict[str, str], expected: str) -> None:
    proxy = proxy_for("hub.plant.example", 8443, Dialling(), environ)
    assert (proxy.url if proxy else "") == expected
    stated = proxy_for("hub.plant.example", 8443, Dialling(proxy="http://mine"), environ)
    assert stated is not None
    assert stated.url == "http://mine:80"
    assert proxy_for("hub.plant.example", 8443, Dialling(proxy="none"), environ) is None


@pytest.mark.parametrize("exempt", ("fd00::/16", "fd00::7", "[fd00::7]", "[fd00::7]:8443"))
def test_addresses_are_exempt_by_their_networks(exempt: str) -> None:
    environ = {"https_proxy": "http://p:1", "no_proxy": exempt}
    assert proxy_for("fd00::7", 8443, Dialling(), environ) is None
    assert proxy_for("fe80::7", 8443, Dialling(), environ) is not None


@pytest.mark.parametrize(
    "url",
    (
        "",
        "p:1",
        "socks5://p:1",
        "http://",
        "http://p:x",
        "http://p:0",
        "http://a:secret@p:99999",
        "http://p/x",
    ),
)
def test_what_is_no_address_of_a_proxy_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_proxy(url)
    assert "secret" not in _all_of(caught.value)


def test_a_password_may_have_any_characters() -> None:
    authorization = parse_proxy("http://edge:p%40ss%3Aw%C3%B6rd@p:1").authorization
    assert b64decode(authorization.removeprefix("Basic ")).decode() == "edge:p@ss:wörd"


def test_a_password_is_in_nothing_that_is_shown() -> None:
    url = "http://edge:secret@p:1"
    dialling = Dialling(proxy=url)
    for shown in (
        repr(dialling),
        str(dialling),
        repr(parse_proxy(url)),
        shown_proxy(url),
        shown_proxy("x@y"),
    ):
        assert "secret" not in shown
    assert parse_proxy(url).authorization not in repr(parse_proxy(url))


@pytest.mark.parametrize(
    "dialling",
    (Dialling(ca_pem="nothing"), Dialling(proxy="p"), Dialling(connect_s=0), Dialling(answer_s=1e9)),
)
def test_what_can_never_work_is_refused(dialling: Dialling) -> None:
    with pytest.raises(Rejected):
        check_dialling(dialling)
