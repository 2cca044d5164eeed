"""What every way to the neighbours' blobs keeps: what comes is what is there, and who may not have it gets nothing."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from skerry.adapters.lan_door import MAX_OF_ONE, LanDoor
from skerry.adapters.lan_near import LanNear
from skerry.kit.digests import digest_of
from skerry.kit.errors import SkerryError
from skerry.ports.sharing import Door, Near, NearPlace
from skerry.spec.sharing import Holding, SharingAnswer, SharingQuestion
from skerry.testing.memory_sharing import MemoryDoor, MemoryNear
from skerry.testing.waiting import eventually_sync
from skerry.trust.keys import SigningKey
from skerry.trust.tokens import issue_blob_token
from tests.unit.delta_files_of import noise
from tests.unit.sharing_world import SITE, SharingHost, SharingHosts
from tests.unit.upstream import NOW

pytestmark = pytest.mark.delivery

HERE = "127.0.0.1"
BLOB = noise(700_000, 11)
DIGEST = digest_of(BLOB)


class Ends:
    """A host that serves, and the way of another one to it."""

    def __init__(self, kind: str, root: Path) -> None:
        self.site = SharingHosts(root / "hosts", {})
        self.host: SharingHost = self.site[0]
        self.root = root
        self.door: Door = LanDoor(root, "edge-1") if kind == "https" else MemoryDoor(self.site.doors)
        self.near: Near = LanNear() if kind == "https" else MemoryNear(self.site.doors, "edge-2")
        self.place = self.door.open(HERE, 0, self.host.shelf)
        self.token = self.site[1].passes.own()

    def ask(self, **places: NearPlace) -> Mapping[str, SharingAnswer | SkerryError]:
        question = SharingQuestion(wants={DIGEST: 0})
        return self.near.ask(places or {"edge-1": self.place}, question, token=self.token)

    def read(self, offset: int = 0, *, digest: str = DIGEST, token: str = "", size: int = len(BLOB)) -> bytes:
        opened = self.near.blob(self.place, digest, offset=offset, size=size, token=token or self.token)
        with opened as chunks:
            return b"".join(chunks)

    def code_of(self, **how: object) -> str:
        with pytest.raises(SkerryError) as caught:
            self.read(**how)  # type: ignore[arg-type]
        return caught.value.code

    def close(self) -> None:
        self.near.close()
        self.door.close()


@pytest.fixture(params=("memory", "https"))
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ends]:
    made = Ends(str(request.param), tmp_path)
    yield made
    made.close()


@pytest.fixture
def https(tmp_path: Path) -> Iterator[Ends]:
    made = Ends("https", tmp_path)
    yield made
    made.close()


def test_a_question_is_answered_by_all_who_can_be_reached(ends: Ends) -> None:
    ends.host.blobs.put(DIGEST, BLOB)
    nobody = NearPlace(f"{HERE}:1", "0" * 64)
    answers = ends.ask(**{"edge-1": ends.place, "edge-3": nobody})
    assert answers["edge-1"] == SharingAnswer(holdings={DIGEST: Holding(state="whole")})
    failed = answers["edge-3"]
    assert isinstance(failed, SkerryError)
    assert failed.code == "near.unreachable"


def test_a_blob_comes_from_any_byte_on(ends: Ends) -> None:
    ends.host.blobs.put(DIGEST, BLOB)
    for offset in (0, 1, 300_000, len(BLOB) - 1):
        assert ends.read(offset) == BLOB[offset:]


def test_a_blob_is_followed_while_it_comes(ends: Ends) -> None:
    host, came = ends.host, bytearray()
    ends.site.real_ways = True
    with host.sharing.wanting({DIGEST: len(BLOB)}):
        host.sharing.follow({}, named=())
        assert host.sharing.source(DIGEST).kind == "above"
        host.blobs.append(DIGEST, [BLOB[:100_000]], offset=0, limit=len(BLOB))

        def follow() -> None:
            opened = ends.near.blob(ends.place, DIGEST, offset=50_000, size=len(BLOB), token=ends.token)
            with opened as chunks:
                for chunk in chunks:
                    came.extend(chunk)

        reader = threading.Thread(target=follow)
        reader.start()
        eventually_sync(lambda: len(came) == 50_000)
        host.blobs.append(DIGEST, [BLOB[100_000:]], offset=100_000, limit=len(BLOB))
        eventually_sync(lambda: len(came) == len(BLOB) - 50_001, what="all but the byte that is held back")
        host.blobs.finish(DIGEST)
        host.sharing.settle(DIGEST)
        reader.join(20)
    assert bytes(came) == BLOB[50_000:]


def test_what_ends_too_early_is_a_cut_and_no_end(ends: Ends) -> None:
    host = ends.host
    with host.sharing.wanting({DIGEST: len(BLOB)}):
        host.sharing.follow({}, named=())
        host.sharing.source(DIGEST)
        host.blobs.append(DIGEST, [BLOB[:100_000]], offset=0, limit=len(BLOB))
        assert ends.code_of() == "near.cut"


def test_who_may_not_have_it_gets_nothing(ends: Ends) -> None:
    ends.host.blobs.put(DIGEST, BLOB)
    stranger = issue_blob_token("edge-2", SITE, NOW.replace(year=2030), SigningKey.generate())
    assert ends.code_of(token=stranger) == "near.refused"
    assert ends.code_of(digest=digest_of(b"other")) == "near.missing"
    ends.token = stranger
    failed = ends.ask()["edge-1"]
    assert isinstance(failed, SkerryError)
    assert failed.code == "near.refused"


def test_nothing_is_there_when_the_door_is_closed(ends: Ends) -> None:
    ends.host.blobs.put(DIGEST, BLOB)
    assert ends.read() == BLOB
    ends.door.close()
    assert ends.code_of() == "near.unreachable"
    ends.place = ends.door.open(HERE, 0, ends.host.shelf)
    assert ends.read() == BLOB


@pytest.mark.rule("SHARE-5")
def test_somebody_else_at_the_address_is_told_nothing(https: Ends, tmp_path: Path) -> None:
    https.host.blobs.put(DIGEST, BLOB)
    https.place = NearPlace(https.place.address, "0" * 64)
    assert https.code_of() == "near.strange"
    answer = https.ask()["edge-1"]
    assert isinstance(answer, SkerryError)
    assert answer.code == "near.strange"


def test_a_blob_of_another_size_is_not_taken(https: Ends) -> None:
    https.host.blobs.put(DIGEST, BLOB)
    assert https.code_of(size=len(BLOB) + 1) == "near.strange"


def test_a_kept_connection_that_has_gone_is_no_failure(https: Ends) -> None:
    https.host.blobs.put(DIGEST, BLOB)
    port = int(https.place.address.rpartition(":")[2])
    assert isinstance(https.ask()["edge-1"], SharingAnswer)
    https.door.close()
    https.door = LanDoor(https.root, "edge-1")
    assert https.door.open(HERE, port, https.host.shelf) == https.place, "it keeps its key"
    assert isinstance(https.ask()["edge-1"], SharingAnswer)


def test_where_the_port_is_taken_another_serves(https: Ends, tmp_path: Path) -> None:
    with socket.create_server((HERE, 0)) as taken:
        port = int(taken.getsockname()[1])
        https.place = https.door.open(HERE, port, https.host.shelf)
    assert https.place.address != f"{HERE}:{port}"
    assert isinstance(https.ask()["edge-1"], SharingAnswer)


def connect(place: NearPlace) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = place.address.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=10))


@pytest.mark.rule("SHARE-5")
@pytest.mark.parametrize(
    "head",
    (
        "GET /v1/blobs/{digest} HTTP/1.1\r\n\r\n",
        "GET /v1/blobs/{digest} HTTP/1.1\r\nAuthorization: Bearer \r\n\r\n",
        "GET /v1/blobs/../lan.pem HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n",
        "GET /v1/blobs/{digest} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nRange: bytes=1-2,5-6\r\n\r\n",
        "POST /v1/sharing HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}",
        "POST /v1/sharing HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 99999999\r\n\r\n",
        'POST /v1/sharing HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 3\r\n\r\n{{"\xff',
        "DELETE / HTTP/1.1\r\n\r\n",
    ),
)
def test_whatever_is_asked_otherwise_is_refused(https: Ends, head: str) -> None:
    https.host.blobs.put(DIGEST, BLOB)
    with connect(https.place) as connection:
        connection.sendall(head.format(digest=DIGEST, token=https.token).encode("latin-1"))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status in (400, 403, 404, 501)
        assert len(answer.read()) < 100
    assert https.read() == BLOB, "and it goes on serving"


def test_who_shows_no_token_in_time_is_cut_off(tmp_path: Path) -> None:
    site = SharingHosts(tmp_path / "hosts", {})
    door = LanDoor(tmp_path, "edge-1", admit_within_s=0.2)
    place = door.open(HERE, 0, site[0].shelf)
    try:
        host, _, port = place.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as silent, connect(place) as dawdling:
            dawdling.sendall(b"GET /v1/blobs/")
            with contextlib.suppress(OSError):
                assert silent.recv(100) == b""
            with contextlib.suppress(OSError):
                assert dawdling.recv(100) == b""
    finally:
        door.close()


def test_one_address_cannot_take_all_connections(https: Ends) -> None:
    https.host.blobs.put(DIGEST, BLOB)
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_OF_ONE):
            stack.enter_context(connect(https.place))
        with pytest.raises(OSError):  # noqa: PT011 (reset or end of file, as it comes)
            connect(https.place)
    eventually_sync(lambda: isinstance(https.ask()["edge-1"], SharingAnswer))
