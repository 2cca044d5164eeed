"""How a host goes up: said at joining, changed later, kept in files, and followed by a running agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from skerry.agent.commands import join_site, read_status
from skerry.agent.identity import Place, load_place, save_place
from skerry.agent.ways_up import LOOK_EVERY_S, WayFollower, load_way, set_way
from skerry.carrier.app import carrier_app
from skerry.carrier.ways_up import StatedDialling, StatedWay, load_dialling, open_upstreams
from skerry.cli.agent import agent
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Rejected, Unavailable, Untrusted
from skerry.spec.carrier import JoinToken
from skerry.testing.clock import SimulatedClock
from skerry.trust.tokens import encode_join_token
from tests.unit.carrier_backend import REQUEST, Backend
from tests.unit.connect_proxy import ConnectProxy
from tests.unit.test_carrier_link import Certificates, served_app
from tests.unit.upstream import SIGNED

NOBODY = "https://127.0.0.1:1"
PLACE = Place(host="edge", site="harbour", upstream=NOBODY, root="sha256:0")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], datetime.now(UTC))


class JoinableBackend(Backend):
    """One that shows a trust root."""

    def __init__(self, ca_pem: str) -> None:
        super().__init__()
        self.root = msgspec.json.encode(SIGNED.trust_root(ca_pem))

    async def trust_root(self, digest: str) -> bytes:
        return self.root


@contextmanager
def joinable(certificates: Certificates) -> Generator[tuple[JoinableBackend, str]]:
    backend = JoinableBackend(certificates.ca_pem)
    with served_app(carrier_app(backend), certificates) as url:
        yield backend, url


def token(backend: JoinableBackend, hub: str, relay: str = "") -> str:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    return encode_join_token(
        JoinToken(
            hub=hub,
            site="harbour",
            root=digest_of(backend.root),
            secret="s",
            expires_at=expires_at,
            relay=relay,
        )
    )


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    save_place(tmp_path, PLACE, msgspec.json.encode(SIGNED.trust_root()))
    return tmp_path


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(agent, arguments, input=stdin)


def test_a_host_joins_by_the_first_upstream_that_answers_and_keeps_all_in_their_order(
    certificates: Certificates, tmp_path: Path
) -> None:
    with joinable(certificates) as (backend, url), ConnectProxy().running() as proxy:
        stated = StatedWay((NOBODY, url), StatedDialling(proxy=f"http://127.0.0.1:{proxy.port}", connect_s=3))
        join_site(tmp_path, token(backend, "https://elsewhere"), host="edge", keys="file", stated=stated)
        assert [place.partition(":")[0] for place in proxy.asked] == ["127.0.0.1"] * len(proxy.asked)
        assert len(proxy.asked) >= 3, "the trust root and the enrolment go the same way"
    place = load_place(tmp_path)
    assert place is not None
    assert (place.upstream, place.upstreams) == (NOBODY, (NOBODY, url))
    assert load_dialling(tmp_path).connect_s == 3
    assert (tmp_path / "dialling.json").stat().st_mode & 0o777 == 0o600


def test_a_host_that_is_told_nothing_goes_by_the_address_of_its_token(
    certificates: Certificates, tmp_path: Path
) -> None:
    with joinable(certificates) as (backend, url):
        place = join_site(tmp_path, token(backend, url), host="edge", keys="file")
        assert load_way(tmp_path, place).upstreams == (url,)
        assert not (tmp_path / "dialling.json").exists()
        with pytest.raises(Rejected) as caught:
            join_site(tmp_path, token(backend, url, relay="l3"), host="edge", keys="file")
        assert caught.value.code == "join.for_relay"


def test_a_host_that_joins_where_nobody_answers_says_so_and_is_not_joined(tmp_path: Path) -> None:
    backend = JoinableBackend("")
    with pytest.raises(Unavailable):
        join_site(tmp_path, token(backend, NOBODY), host="edge", stated=StatedWay((NOBODY, f"{NOBODY}/b")))
    assert load_place(tmp_path) is None


async def test_a_running_agent_takes_another_way_up_within_seconds(
    certificates: Certificates, joined: Path
) -> None:
    clock, root = SimulatedClock(), SIGNED.trust_root(certificates.ca_pem)
    up = open_upstreams(load_way(joined, PLACE), root, clock)
    following = asyncio.create_task(WayFollower(joined, root, up, clock).run_forever())
    with joinable(certificates) as (_, url):
        await clock.elapse(10 * LOOK_EVERY_S)
        assert up.url == NOBODY
        for unusable in (b"{", b'{"host":"edge","site":"harbour","upstream":"ftp://x","root":""}'):
            (joined / "identity.json").write_bytes(unusable)
            await clock.elapse(LOOK_EVERY_S)
            assert up.url == NOBODY, "what cannot be used changes nothing"
        save_place(joined, PLACE, b"")
        set_way(joined, StatedWay((url, NOBODY)))
        await clock.elapse(LOOK_EVERY_S)
        assert (await asyncio.to_thread(up.sync, REQUEST)).acknowledged == 7
        with ConnectProxy().running() as proxy:
            set_way(joined, StatedWay(dialling=StatedDialling(proxy=f"http://127.0.0.1:{proxy.port}")))
            await clock.elapse(LOOK_EVERY_S)
            assert (await asyncio.to_thread(up.sync, REQUEST)).acknowledged == 7
            assert len(proxy.asked) == 1
    up.close()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_what_was_stated_at_the_start_counts_for_as_long_as_the_agent_runs(
    certificates: Certificates, joined: Path
) -> None:
    clock, root = SimulatedClock(), SIGNED.trust_root(certificates.ca_pem)
    up = open_upstreams(load_way(joined, PLACE, StatedWay(("https://stated",))), root, clock)
    follower = WayFollower(joined, root, up, clock, fixed=True)
    set_way(joined, StatedWay(("https://a",)))
    follower.step()
    assert up.url == "https://stated"


def test_a_trust_root_without_a_certificate_is_not_gone_by(joined: Path) -> None:
    with pytest.raises(Untrusted):
        open_upstreams(load_way(joined, PLACE), SIGNED.trust_root(), SimulatedClock())


def test_what_is_not_stated_stays_as_it_is(joined: Path) -> None:
    set_way(joined, StatedWay(("https://a", "https://b"), StatedDialling(proxy="http://p", answer_s=9)))
    way = set_way(joined, StatedWay(dialling=StatedDialling(connect_s=4)))
    assert way.upstreams == ("https://a", "https://b")
    assert (way.dialling.proxy, way.dialling.connect_s, way.dialling.answer_s) == ("http://p", 4, 9)
    assert set_way(joined, StatedWay(("https://c",))).dialling == way.dialling


@pytest.mark.parametrize(
    "upstreams",
    (("http://a",), ("https://a", "https://a"), ("https://u:p@a",), tuple(f"https://{n}" for n in range(9))),
)
def test_a_way_that_can_never_work_is_refused_and_changes_nothing(
    joined: Path, upstreams: tuple[str, ...]
) -> None:
    before = (joined / "identity.json").read_bytes()
    with pytest.raises(Rejected) as caught:
        set_way(joined, StatedWay(upstreams))
    assert "u:p" not in str(caught.value)
    assert (joined / "identity.json").read_bytes() == before


def test_a_damaged_file_is_told_and_nothing_of_it(joined: Path) -> None:
    (joined / "dialling.json").write_text('{"proxy": "http://a:secret@p", "connect_s": "x"}')
    with pytest.raises(Rejected) as caught:
        load_dialling(joined)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(Missing):
        set_way(joined / "none", StatedWay(("https://a",)))


def test_upstreams_are_changed_by_a_command_and_a_password_comes_from_a_file(joined: Path) -> None:
    secret = joined / "proxy"
    secret.write_text("http://edge:secret@p:3128\n")
    done = run(
        "upstreams", "set", "https://a", "https://b", "--data", str(joined), "--proxy-file", str(secret)
    )
    assert (done.exit_code, done.output) == (0, "https://a\nhttps://b\nproxy: http://p:3128\n")
    assert load_dialling(joined).proxy == "http://edge:secret@p:3128"
    refused = run("upstreams", "set", "--data", str(joined), "--proxy", "http://edge:secret@p")
    assert isinstance(refused.exception, Rejected)
    assert refused.exception.code == "proxy.password_in_argument"
    assert "secret" not in str(refused.exception) + refused.output
    assert run("upstreams", "set", "--data", str(joined), "--proxy", "none").exit_code == 0
    assert load_dialling(joined).proxy == "none"


def test_the_status_says_which_upstream_is_in_use_and_why(joined: Path) -> None:
    set_way(joined, StatedWay(("https://a", "https://b")))
    assert [view["url"] for view in read_status(joined)["upstreams"]] == ["https://a", "https://b"]
    views = [
        {"url": "https://a", "in_use": False, "trouble": "cannot reach a", "since": "2026-05-04T12:00:00Z"},
        {"url": "https://b", "in_use": True, "trouble": "", "since": None},
    ]
    (joined / "status.json").write_text(json.dumps({"host": "edge", "site": "harbour", "upstreams": views}))
    text = run("status", "--data", str(joined)).output
    assert "host edge at site harbour, upstream https://b\n" in text
    assert "  https://a: not in use: since 2026-05-04T12:00:00Z cannot reach a\n" in text
    assert "  https://b: in use\n" in text
