"""A host takes only what a publisher vouches for: unsigned, revoked, expired, rolled back, and a stolen hub."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from skerry.kit.errors import Untrusted
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.publishing import Running
from skerry.spec.report import Report
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.signing import Publisher, SignedRepository
from skerry.trust.keys import SigningKey
from tests.unit.agent_world import APP, Agent, Upstream, agent
from tests.unit.upstream import HUB, NOW, desired

pytestmark = pytest.mark.trust

OLD, NEW = b"old", b"new"


def why(made: Agent) -> str:
    return made.observed.applications[APP].why


@pytest.mark.rule("VOUCH-1")
async def test_a_release_that_nobody_signed_is_neither_fetched_nor_run(tmp_path: Path) -> None:
    link = Upstream()
    signed = link.release("1", OLD)
    link.signed = SignedRepository(HUB, now=NOW)  # the same hub, and a publisher that never saw this release
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": signed})
        await made.steps()
        assert why(made) == "publisher acme has not signed anything yet"
        link.release("2", NEW)
        made.clock.advance(120.0)
        await made.judge()
        await made.steps()
        assert why(made) == f"publisher acme has not signed {APP}@1"
    assert signed.digest not in link.fetched


@pytest.mark.rule("VOUCH-1")
async def test_another_document_under_a_signed_name_is_not_fetched(tmp_path: Path) -> None:
    """A stolen hub names what it made itself by the name of a release that was signed."""
    link, forge = Upstream(), Upstream()
    link.release("1", OLD)
    forged = forge.release("1", b"forged")
    link.contents |= forge.contents
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": forged})
        await made.steps()
        assert why(made) == f"publisher acme has signed another {APP}@1"
    assert forged.digest not in link.fetched


@pytest.mark.rule("VOUCH-1")
async def test_a_publisher_that_the_offline_keys_do_not_name_counts_for_nothing(tmp_path: Path) -> None:
    """A stolen hub makes a publisher of its own, and lists it in a snapshot that its online key signs."""
    link = Upstream()
    good = link.release("1", OLD)
    link.signed.publisher = Publisher("acme")  # another key than the one that was delegated to
    forged = link.release("2", b"forged")
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"2": forged})
        await made.steps()
        assert "not signed by enough" in why(made) or "was signed by" in why(made)
    assert forged.digest not in link.fetched
    assert good.digest not in link.fetched


@pytest.mark.parametrize("running", ("keep", "replace", "stop"))
@pytest.mark.rule("VOUCH-3")
async def test_a_revoked_release_is_kept_replaced_or_stopped_as_the_revocation_says(
    tmp_path: Path, running: Running
) -> None:
    link = Upstream()
    first, second = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"), what="the first release")
        await made.desire(2, {"2": second})
        await made.until(lambda: made.runs("2"), what="the second release")
        snapshot = link.signed.revoke(f"{APP}@2", why="it leaks", running=running)
        await made.desire(3, {"2": second}, snapshot=snapshot)
        await made.steps()
        expected = {"keep": "2", "replace": "1", "stop": "2"}[running]
        await made.until(lambda: made.observed.applications[APP].release == f"{APP}@{expected}")
        assert f"{APP}@2 was revoked: it leaks" in why(made)
        alive = {view.labels["release"] for view in (await made.runtime.instances()).values()}
        assert alive == {"keep": {second.digest}, "replace": {first.digest}, "stop": set()}[running]


@pytest.mark.rule("VOUCH-3")
async def test_a_revoked_release_is_not_taken_even_when_it_was_vouched_for_before(tmp_path: Path) -> None:
    link = Upstream()
    first, second = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first}, {"2": second})
        await made.until(lambda: made.runs("1") and made.ahead("2") == "fetched")
        snapshot = link.signed.revoke(f"{APP}@2", why="it leaks")
        await made.desire(2, {"2": second}, snapshot=snapshot)
        await made.steps()
        assert made.runs("1")
        assert why(made) == f"{APP}@2 was revoked: it leaks"


@pytest.mark.rule("VOUCH-3")
async def test_after_a_publisher_is_revoked_nothing_of_it_is_taken(tmp_path: Path) -> None:
    link = Upstream()
    first, second = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"))
        link.signed.remove_publisher(link.signed.publisher, why="its key was stolen")
        await made.desire(2, {"2": second}, snapshot=link.signed.versions["snapshot"])
        await made.steps()
        assert made.runs("1")
        assert why(made) == "publisher acme was revoked: its key was stolen"
    assert second.digest not in link.fetched


@pytest.mark.parametrize("withheld", ("snapshot", "publisher"))
@pytest.mark.parametrize("restart", (False, True))
@pytest.mark.rule("VOUCH-3")
async def test_a_carrier_that_holds_back_a_part_of_the_newer_metadata_undoes_no_revocation(
    tmp_path: Path, withheld: str, *, restart: bool
) -> None:
    link, store = Upstream(), MemoryAgentStore()
    second = link.release("2", NEW)
    async with agent(tmp_path, link, store=store) as made:
        await made.desire(2, {"2": second})
        await made.until(lambda: made.runs("2"))
        snapshot = link.signed.revoke(f"{APP}@2", why="it leaks", running="stop")
        await made.desire(3, {"2": second}, snapshot=snapshot)
        await made.steps()
        assert not await made.runtime.instances()
        if withheld == "publisher":
            link.release("3", b"third")
        else:
            link.signed.put({}, link.signed.online)
        newest = max((n for n in link.signed.files if withheld in n), key=lambda n: int(n.partition(".")[0]))
        del link.signed.files[newest]
        await made.desire(4, {"2": second}, snapshot=link.signed.versions["snapshot"])
        made.clock.advance(300.0)
        await made.judge()
        await made.steps()
        assert restart or not await made.runtime.instances()
    if restart:
        async with agent(tmp_path, link, store=store) as again:
            await again.vouching.begin()
            await again.steps()
            assert not await again.runtime.instances()


@pytest.mark.rule("VOUCH-4")
async def test_with_expired_metadata_what_runs_runs_on_and_nothing_new_is_taken(tmp_path: Path) -> None:
    link = Upstream()
    first, second = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"))
        made.clock.advance(timedelta(days=61).total_seconds())
        await made.desire(2, {"2": second}, at=made.clock.now())
        await made.steps()
        assert made.observed.applications[APP].release == f"{APP}@1"
        assert f"what is signed of {APP}@2 expired at 2026-07-03 12:00Z; nothing new is taken" in why(made)
        assert "timestamp.json is expired" in made.observed.metadata.trouble
        link.signed.now = made.clock.now()
        link.signed.put({}, link.signed.online)  # the hub signs anew
        made.clock.advance(120.0)
        await made.until(lambda: made.runs("2"), what="the second release")
        assert made.observed.metadata.trouble == ""


async def test_nothing_is_asked_while_nothing_changed_and_four_small_files_when_a_release_came(
    tmp_path: Path,
) -> None:
    link = Upstream()
    first = link.release("1", OLD)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"))
        link.metadata_asked.clear()
        for generation in range(2, 6):
            await made.desire(generation, {"1": first}, variables={"line": str(generation)})
            await made.steps(3)
        made.clock.advance(3600.0)
        await made.steps(3)
        assert link.metadata_asked == []
        second = link.release("2", NEW)
        await made.desire(6, {"2": second})
        await made.until(lambda: made.runs("2"))
        asked = ["2.root.json", "timestamp.json", "4.snapshot.json", "2.publisher-acme.json"]
        assert link.metadata_asked == asked


async def test_a_host_that_begins_without_a_link_goes_by_what_it_kept(tmp_path: Path) -> None:
    link, store = Upstream(), MemoryAgentStore()
    first, second = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link, store=store) as made:
        await made.desire(1, {"1": first}, {"2": second})
        await made.until(lambda: made.runs("1") and made.ahead("2") == "fetched")
        await made.desire(2, {"2": second})
    link.signed.files.clear()
    link.contents.clear()
    async with agent(tmp_path, link, store=store) as again:
        await again.vouching.begin()
        await again.until(lambda: again.runs("2"), what="the release that was fetched ahead")


@pytest.mark.rule("VOUCH-2")
async def test_metadata_that_is_older_than_what_was_kept_is_refused(tmp_path: Path) -> None:
    link = Upstream()
    first = link.release("1", OLD)
    files = dict(link.signed.files)
    second = link.release("2", NEW)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"2": second})
        await made.until(lambda: made.runs("2"))
        link.signed.files = files  # a relay, or a replayed backup, shows the state of yesterday
        await made.desire(2, {"1": first}, snapshot=99)
        await made.steps()
        assert made.observed.metadata.trouble.startswith("New timestamp version 3 must")
        assert made.observed.metadata.snapshot == 4


@pytest.mark.parametrize("name", ("timestamp.json", "snapshot.json", "targets.json", "publisher-acme.json"))
async def test_a_damaged_metadata_file_is_fetched_again(tmp_path: Path, name: str) -> None:
    link, store = Upstream(), MemoryAgentStore()
    first, second = link.release("1", OLD), link.release("2", NEW)
    async with agent(tmp_path, link, store=store) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"))
    file = tmp_path / "metadata" / name
    file.write_bytes(file.read_bytes()[:-100])
    async with agent(tmp_path, link, store=store) as again:
        await again.desire(2, {"2": second})
        await again.until(lambda: again.runs("2"))


@pytest.mark.rule("VOUCH-5")
async def test_a_host_follows_many_roots_at_once_and_then_believes_the_new_key_alone(tmp_path: Path) -> None:
    link = Upstream()
    first = link.release("1", OLD)
    async with agent(tmp_path, link) as made:
        await made.desire(1, {"1": first})
        await made.until(lambda: made.runs("1"))
        signed = link.signed
        for version in range(2, 9):
            before, signed.root_key = signed.root_key, SigningKey.generate()
            signed.desired = SigningKey.generate()
            signed.rotate(version=version, also=(before,))
        await say(made, desired(2, key=signed.desired))
        assert made.syncer.desired is not None
        assert made.syncer.desired.generation == 2
        with pytest.raises(Untrusted, match="no trusted key"):
            await say(made, desired(3, key=HUB))
        assert made.syncer.desired.generation == 2


@pytest.mark.rule("VOUCH-5")
async def test_a_root_that_the_old_keys_did_not_sign_is_not_followed(tmp_path: Path) -> None:
    link = Upstream()
    async with agent(tmp_path, link) as made:
        link.signed.root_key = SigningKey.generate()
        link.signed.desired = SigningKey.generate()
        link.signed.rotate(version=2)
        with pytest.raises(Untrusted):
            await say(made, desired(1, key=link.signed.desired))
        assert made.syncer.desired is None


async def say(made: Agent, envelope: dict[str, object]) -> None:
    """Let the hub answer with an envelope."""

    def answer(_: SyncRequest, newest: Report) -> SyncAnswer:
        return SyncAnswer(acknowledged=newest.sequence, desired=envelope, blob_token="good")

    made.link.answer = answer
    await made.syncer.exchange(0.0)
