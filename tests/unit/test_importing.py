"""A host takes a bundle: what is refused and why, what it takes, and that it may be cut short at any byte."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.agent.carried import spared_blobs
from skerry.agent.exporting_reports import export_reports
from skerry.carrier.bundle_file import read_reports
from skerry.kit.digests import digest_of
from skerry.kit.errors import SkerryError, Unavailable
from skerry.spec.bundle import BundleEntry, BundleManifest, BundleSite
from skerry.spec.report import REPORT_TYPE, Event, Report
from skerry.testing.faults import FaultPlan, FaultyAgentStore, PowerCut
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.signing import SignedRepository
from skerry.trust.envelope import verify_document
from tests.unit.agent_world import Upstream
from tests.unit.bundle_world import Host, Stick, Taking, envelope_of
from tests.unit.delta_files_of import delta_of
from tests.unit.upstream import NOW, STRANGER

pytestmark = pytest.mark.trust

CONTENT = bytes(range(256)) * 300
replace = msgspec.structs.replace


@pytest.fixture
def hub() -> Upstream:
    return Upstream()


@pytest.fixture
def host(tmp_path: Path, hub: Upstream) -> Host:
    return Host(tmp_path / "data", hub)


def stick(hub: Upstream, generation: int = 3, content: bytes = CONTENT, version: str = "1") -> Stick:
    """Return a bundle with a release of one file."""
    ref = hub.release(version, content)
    made = Stick(hub, generation, ref, version)
    return made.add(hub.contents[ref.digest], content)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(SkerryError) as caught:
        call()
    return caught.value.code


def outcome(call: Callable[[], object]) -> str:
    """Return why something is refused; nothing when it is not."""
    try:
        call()
    except SkerryError as error:
        return error.code
    return ""


async def test_what_came_in_a_bundle_counts_as_if_the_hub_had_answered_so(hub: Upstream, host: Host) -> None:
    made = stick(hub)
    view = host.take(made.build())
    assert (view.agent, view.fresh, view.files, view.copied, view.doubts) == ("does not run", True, 2, 2, {})
    assert host.blobs.path(digest_of(CONTENT)).read_bytes() == CONTENT
    running = Taking(host)
    assert await running.step() == {
        "generation": 3, "family": "", "code": "", "problem": "", "hint": "",
    }  # fmt: skip
    assert running.generation == 3
    assert running.told == ["bundle.taken: generation 3 came in a bundle"]
    assert (host.data / "metadata" / "timestamp.json").read_bytes() == made.metadata["timestamp.json"]
    assert not list((host.data / "carried").glob("*.bundle"))


@pytest.mark.rule("BUNDLE-2")
async def test_the_same_bundle_a_second_time_copies_and_changes_nothing(hub: Upstream, host: Host) -> None:
    content = stick(hub).build()
    host.take(content)
    running = Taking(host)
    await running.step()
    host.say(3)
    before = host.files()
    view = host.take(content)
    assert (view.copied, view.fresh) == (0, False)
    assert (await running.step())["code"] == ""
    assert host.files() == before
    assert running.told == ["bundle.taken: generation 3 came in a bundle"]


def other_hub(made: Stick) -> None:
    made.manifest = replace(made.manifest, hub="another")


def other_site(made: Stick) -> None:
    made.manifest = replace(made.manifest, sites={"airport": BundleSite(generation=3)})


def other_desired(made: Stick) -> None:
    made.desired = envelope_of(3, site="airport")


def other_generation(made: Stick) -> None:
    made.desired = envelope_of(4)


def strangers_desired(made: Stick) -> None:
    made.desired = envelope_of(3, key=STRANGER)


def strangers_manifest(made: Stick) -> None:
    made.key = STRANGER


def strangers_metadata(made: Stick) -> None:
    other = SignedRepository(STRANGER, now=NOW)
    made.metadata |= {name: content for name, content in other.files.items() if name in made.metadata}


def without_snapshot(made: Stick) -> None:
    made.metadata = {name: content for name, content in made.metadata.items() if "snapshot" not in name}


def made_long_ago(made: Stick) -> None:
    made.manifest = replace(made.manifest, expires_at=NOW - timedelta(seconds=1))


def made_ahead(made: Stick) -> None:
    made.manifest = replace(made.manifest, made_at=NOW + timedelta(hours=1))


def expired_desired(made: Stick) -> None:
    made.desired = envelope_of(3, at=NOW - timedelta(days=61))


def altered_blob(made: Stick) -> None:
    made.blobs[digest_of(CONTENT)] = CONTENT
    made.extra = ((entry_of(b"right"), b"wrong"),)


def named_by_a_path(made: Stick) -> None:
    made.metadata |= {"1.../../keys/sign.json": b"{}"}


def overlapping(made: Stick) -> None:
    def shift(manifest: BundleManifest) -> BundleManifest:
        *first, last = manifest.entries
        return replace(manifest, entries=(*first, replace(last, offset=0)))

    made.tamper = shift


def more_than_listed(made: Stick) -> None:
    def drop(manifest: BundleManifest) -> BundleManifest:
        site = manifest.sites["harbour"]
        bare = replace(site, hosts={"edge": replace(site.hosts["edge"], entries=())})
        return replace(manifest, entries=manifest.entries[:-1], sites={"harbour": bare})

    made.tamper = drop


def entry_beyond(made: Stick) -> None:
    def beyond(manifest: BundleManifest) -> BundleManifest:
        site = manifest.sites["harbour"]
        more = replace(site.hosts["edge"], entries=(9999,))
        return replace(manifest, sites={"harbour": replace(site, hosts={"edge": more})})

    made.tamper = beyond


def metadata_as_a_blob(made: Stick) -> None:
    def first(manifest: BundleManifest) -> BundleManifest:
        site = manifest.sites["harbour"]
        more = replace(site.hosts["edge"], entries=(0,))
        return replace(manifest, sites={"harbour": replace(site, hosts={"edge": more})})

    made.tamper = first


def huge_metadata(made: Stick) -> None:
    def grow(manifest: BundleManifest) -> BundleManifest:
        first, *rest = manifest.entries
        moved = [replace(one, offset=one.offset + (1 << 33)) for one in rest]
        return replace(manifest, entries=(replace(first, size_bytes=first.size_bytes + (1 << 33)), *moved))

    made.tamper = grow


def long_metadata(made: Stick) -> None:
    made.metadata |= {"1.long.json": bytes(6 << 20)}


def altered_metadata(made: Stick) -> None:
    def other(manifest: BundleManifest) -> BundleManifest:
        first, *rest = manifest.entries
        return replace(manifest, entries=(replace(first, digest=digest_of(b"another")), *rest))

    made.tamper = other


def entry_of(content: bytes) -> BundleEntry:
    return BundleEntry(kind="blob", name="blob", digest=digest_of(content), size_bytes=len(content), offset=0)


REFUSED: list[tuple[Callable[[Stick], None], str]] = [
    (other_hub, "bundle.wrong_hub"),
    (other_site, "bundle.wrong_site"),
    (other_desired, "desired.wrong_site"),
    (other_generation, "bundle.malformed"),
    (strangers_desired, "envelope.bad_signature"),
    (strangers_manifest, "envelope.bad_signature"),
    (strangers_metadata, "metadata.bad_signature"),
    (without_snapshot, "metadata.missing"),
    (made_long_ago, "bundle.expired"),
    (made_ahead, "bundle.from_the_future"),
    (expired_desired, "desired.expired"),
    (named_by_a_path, "bundle.malformed"),
    (overlapping, "bundle.malformed"),
    (more_than_listed, "bundle.malformed"),
    (entry_beyond, "bundle.malformed"),
    (metadata_as_a_blob, "bundle.malformed"),
    (huge_metadata, "bundle.malformed"),
    (long_metadata, "bundle.malformed"),
    (altered_metadata, "bundle.altered"),
]


@pytest.mark.rule("BUNDLE-1")
@pytest.mark.parametrize(("change", "code"), REFUSED, ids=[change.__name__ for change, _ in REFUSED])
def test_what_is_not_for_this_host_or_not_as_it_was_signed_is_refused_and_changes_nothing(
    hub: Upstream, host: Host, change: Callable[[Stick], None], code: str
) -> None:
    made = stick(hub)
    change(made)
    before = host.files()
    assert refused(lambda: host.take(made.build())) == code
    assert host.files() == before


@pytest.mark.rule("BUNDLE-1")
def test_an_older_generation_than_the_host_has_is_refused(hub: Upstream, host: Host) -> None:
    made = stick(hub).build()
    host.say(4)
    before = host.files()
    assert refused(lambda: host.take(made)) == "bundle.older"
    assert host.files() == before


@pytest.mark.rule("BUNDLE-1")
def test_older_metadata_than_the_host_has_seen_is_refused(hub: Upstream, host: Host) -> None:
    old = stick(hub)
    host.take(stick(hub, version="2").build())
    file = host.data / "metadata"
    file.mkdir(exist_ok=True)
    newest = stick(hub, version="3")
    for name in ("timestamp.json", "snapshot.json"):
        content = newest.metadata.get(name)
        content = content or next(c for n, c in newest.metadata.items() if n.endswith(name))
        (file / name).write_bytes(content)
    before = host.files()
    assert refused(lambda: host.take(old.build())) == "metadata.rollback"
    assert host.files() == before


@pytest.mark.rule("BUNDLE-1")
def test_expired_metadata_is_refused_although_the_bundle_claims_to_be_good(
    tmp_path: Path, hub: Upstream
) -> None:
    made = stick(hub)
    later = NOW + timedelta(days=61)
    made.manifest = replace(made.manifest, expires_at=later + timedelta(days=1))
    host = Host(tmp_path / "later", hub, now=later)
    assert refused(lambda: host.take(made.build())) == "metadata.expired"


@pytest.mark.rule("BUNDLE-1")
async def test_the_agent_judges_for_itself_what_was_put_before_it(hub: Upstream, host: Host) -> None:
    """Whoever may write the directory may leave anything there, and time goes on between the two."""
    host.take(stick(hub, generation=3).build())
    running = Taking(host)
    running.syncer.take_carried(envelope_of(5), 0)
    answer = await running.step()
    assert (answer["code"], running.generation) == ("bundle.older", 5)
    (waiting,) = [host.data / "carried" / f"{'0' * 32}.bundle"]
    waiting.write_bytes(b"anything")
    assert (await running.step())["code"] == "bundle.foreign"
    assert running.generation == 5


@pytest.mark.rule("BUNDLE-1")
def test_an_altered_blob_is_never_one_of_the_hosts(hub: Upstream, host: Host) -> None:
    made = stick(hub)
    altered_blob(made)
    for dry_run in (True, False):
        assert refused(lambda dry_run=dry_run: host.take(made.build(), dry_run=dry_run)) == "bundle.altered"  # type: ignore[misc]
    assert not host.blobs.has(digest_of(b"right"))
    assert not list((host.data / "carried").glob("*.bundle")), "the agent hears nothing of it"


@pytest.mark.rule("BUNDLE-1")
def test_a_flip_of_a_byte_anywhere_is_refused_or_no_part_of_what_is_signed(hub: Upstream, host: Host) -> None:
    whole = stick(hub, content=b"small").build()
    step = max(1, len(whole) // 150)
    for at in range(0, len(whole), step):
        flipped = whole[:at] + bytes((whole[at] ^ 4,)) + whole[at + 1 :]
        code = outcome(lambda flipped=flipped: host.take(flipped, dry_run=True))  # type: ignore[misc]
        # JSON that means the same, such as the name of an unused field: nothing that is signed.
        assert code.partition(".")[0] in ("bundle", "envelope", "metadata", "desired") or (
            not code and b"signatures" in whole[max(0, at - 400) : at + 400]
        ), (at, code)


@pytest.mark.rule("BUNDLE-1")
def test_cut_off_at_any_length_it_is_refused_before_anything_is_copied(hub: Upstream, host: Host) -> None:
    whole = stick(hub, content=b"small").build()
    before = host.files()
    for length in [*range(40), *range(40, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        code = refused(lambda length=length: host.take(whole[:length]))  # type: ignore[misc]
        assert code == ("bundle.foreign" if length == 0 else "bundle.truncated")
    assert refused(lambda: host.take(whole + b"more")) == "bundle.malformed"
    assert host.files() == before


def test_what_a_later_format_or_another_program_wrote_is_told_apart(host: Host) -> None:
    assert refused(lambda: host.take(b"skerry-bundle-2\n" + bytes(40))) == "bundle.newer"
    assert refused(lambda: host.take(b"PK\x03\x04" + bytes(40))) == "bundle.foreign"
    assert refused(lambda: host.take(b"skerry-bundle-1\n\xff\xff\xff\xff" + bytes(40))) == "bundle.malformed"


@pytest.mark.rule("BUNDLE-2")
def test_an_import_that_was_cut_short_goes_on_where_it_stopped(hub: Upstream, host: Host) -> None:
    made = stick(hub)
    digest = digest_of(CONTENT)
    host.blobs.append(digest, [CONTENT[:5000]], offset=0, limit=len(CONTENT))
    assert host.take(made.build()).copied == 2
    assert host.blobs.path(digest).read_bytes() == CONTENT


@pytest.mark.rule("BUNDLE-2")
def test_what_a_damaged_copy_left_behind_does_not_spoil_a_good_one(hub: Upstream, host: Host) -> None:
    made = stick(hub)
    digest = digest_of(CONTENT)
    host.blobs.append(digest, [b"wrong" * 100], offset=0, limit=len(CONTENT))
    host.take(made.build())
    assert host.blobs.path(digest).read_bytes() == CONTENT


@pytest.mark.rule("BUNDLE-2")
@pytest.mark.parametrize("nth", range(1, 9))
async def test_an_agent_whose_disk_is_full_or_whose_power_is_cut_takes_it_later(
    hub: Upstream, host: Host, nth: int
) -> None:
    made = stick(hub)
    made.acknowledged = 1
    host.take(made.build())
    plan, memory = FaultPlan(), MemoryAgentStore()
    running = Taking(host, FaultyAgentStore(memory, plan))
    running.syncer.note("component.ended", "once")
    running.syncer.reports_to_carry()
    if nth % 2:
        plan.kill(nth=(nth + 1) // 2, when="after")
    else:
        plan.fail("*", Unavailable("disk.full", "no room"), nth=nth // 2)
    with contextlib.suppress(PowerCut, Unavailable):
        await running.step()
    again = Taking(host, memory)
    waiting = list((host.data / "carried").glob("*.bundle"))
    assert waiting or again.generation == 3, "it is taken, or still there to be taken"
    answer = await again.step()
    assert (answer["code"], again.generation) == ("", 3)


def test_a_delta_brings_the_file_that_it_leads_to(hub: Upstream, host: Host) -> None:
    old, new = CONTENT, CONTENT[:30_000] + b"another" + CONTENT[30_000:]
    made = delta_stick(hub, old, new)
    assert refused(lambda: host.take(made.build())) == "bundle.base_missing"
    host.blobs.put(digest_of(old), old)
    view = host.take(made.build())
    assert view.copied_bytes < 5000
    assert host.blobs.path(digest_of(new)).read_bytes() == new


def delta_stick(hub: Upstream, old: bytes, new: bytes) -> Stick:
    ref = hub.release("2", new)
    made = Stick(hub, 4, ref, "2").add(hub.contents[ref.digest])
    delta = delta_of(old, new)
    entry = replace(
        entry_of(delta), kind="delta", base=(digest_of(old),), target=digest_of(new), target_bytes=len(new)
    )
    made.extra = ((entry, delta),)
    return made


async def test_what_came_is_not_tidied_away_before_its_release_is_known(hub: Upstream, host: Host) -> None:
    made = stick(hub)
    host.take(made.build())
    (release,) = [digest for digest in made.blobs if digest != digest_of(CONTENT)]
    assert spared_blobs(host.data, frozenset()) >= {release, digest_of(CONTENT)}
    assert spared_blobs(host.data, frozenset({release})) == frozenset()


@pytest.mark.rule("BUNDLE-3")
async def test_a_host_forgets_reports_when_a_bundle_says_that_the_hub_has_them(
    hub: Upstream, host: Host
) -> None:
    running = Taking(host)
    running.syncer.note("component.ended", "first")
    first = running.syncer.reports_to_carry()
    running.syncer.note("component.ended", "second")
    both = running.syncer.reports_to_carry()
    assert [messages(running, one) for one in both][:2] == [["first"], ["second"]]
    made = stick(hub)
    made.acknowledged = sequence(running, first[0])
    host.take(made.build())
    await running.step()
    left = running.syncer.reports_to_carry()
    assert [messages(running, one) for one in left if messages(running, one)] == [["second"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_imports_and_exports_belongs_to_the_agents_user(hub: Upstream) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        made = Host(Path(place) / "data", hub)
        somebody = 12345
        for path in (made.data, *made.data.rglob("*")):
            os.chown(path, somebody, somebody)
        made.take(stick(hub).build())
        export_reports(made.data, Path(place) / "reports", timeout_s=1.0)
        owners = {path.stat().st_uid for path in made.data.rglob("*")}
        assert owners == {somebody}
        assert os.geteuid() == 0 == (Path(place) / "reports").stat().st_uid


def test_reports_are_written_whether_the_agent_runs_or_not(host: Host, tmp_path: Path) -> None:
    view = export_reports(host.data, tmp_path / "out", timeout_s=1.0)
    assert view.reports == 1
    (part,) = read_reports(tmp_path / "out")
    assert len(part.reports) == 1
    again = export_reports(host.data, tmp_path / "out", timeout_s=1.0)
    assert again.reports == 1


async def test_a_running_agent_writes_the_reports_that_are_asked_for(host: Host) -> None:
    running = Taking(host)
    folder = host.data / "carried"
    folder.mkdir()
    (folder / "reports.request").touch()
    running.syncer.note("component.ended", "once")
    await running.step()
    found = [one for part in read_reports(folder / "reports.out") for one in part.reports]
    assert [messages(running, one) for one in found] == [["once"], []]
    assert not (folder / "reports.request").exists()


def report_of(running: Taking, envelope: dict[str, object]) -> Report:
    return verify_document(envelope, REPORT_TYPE, Report, [running.identity.key.verifier])


def messages(running: Taking, envelope: dict[str, object]) -> list[str]:
    events: tuple[Event, ...] = report_of(running, envelope).events
    return [event.message for event in events]


def sequence(running: Taking, envelope: dict[str, object]) -> int:
    return report_of(running, envelope).sequence
