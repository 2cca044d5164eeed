"""Secrets on a host: opened, handed to applications, rotated without a link, and wiped; whatever is cut off when."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.memory_folder import find_memory_folder
from skerry.agent.keys import KeyFiles
from skerry.agent.secret_files import Owner, SecretFiles
from skerry.agent.vault import Vault
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Bundle,
    Component,
    HttpProbe,
    OnSecretChange,
    Port,
    SecretUse,
)
from skerry.spec.desired import ReleaseRef
from skerry.spec.documents import check_release
from skerry.spec.ingress import Route
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.secret import SealedSecret
from skerry.testing.faults import FaultPlan, PowerCut
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.keys import key_id
from skerry.trust.sealing import Binding, seal_secret
from tests.unit.agent_world import APP, Agent, Upstream
from tests.unit.upstream import NOW, report_of

pytestmark = pytest.mark.secrets

OLD, NEW = "old-canary-5d1f", "new-canary-90ab"


class Host:
    """A host whose agent can be ended, and begun again with its disk and without what was in memory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.link = Upstream()
        self.store = MemoryAgentStore()
        self.generation = 0
        self.agent = Agent(data, self.link, store=self.store)
        self.public = self.agent.keys.make().seal_public

    def release(
        self, version: str, *uses: SecretUse, ports: tuple[Port, ...] = (), routes: tuple[Route, ...] = ()
    ) -> ReleaseRef:
        """Hold a signed release of a process that uses secrets."""
        bundle = Bundle(files=(self.link.add(version.encode(), "run"),))
        component = Component(name="main", bundle=bundle, command=("./run",), secrets=uses, ports=ports)
        spec = ApplicationSpec(version=version, components=(component,), ingress=routes)
        found = Release(application=Application(metadata=Metadata(APP), spec=spec))
        assert not check_release(found)
        document = encode_canonical(found)
        self.link.contents[digest_of(document)] = document
        self.link.signed.vouch(found)
        publisher = self.link.signed.publisher.name
        return ReleaseRef(digest=digest_of(document), size_bytes=len(document), publisher=publisher)

    def seal(self, value: str, version: int, *, name: str = "password", **times: Any) -> SealedSecret:
        own = f"{version:032x}" if name == "password" else f"{version + 1000:032x}"
        binding = Binding(host="edge", name=name, version=version, id=own)
        return SealedSecret(
            id=own,
            name=name,
            version=version,
            key=key_id(self.public),
            sealed=seal_secret(value.encode(), self.public, binding),
            **times,
        )

    async def desire(self, assigned: dict[str, ReleaseRef], *secrets: SealedSecret, **more: Any) -> None:
        self.generation += 1
        given = {"edge": secrets} if secrets else {}
        await self.agent.desire(self.generation, assigned, secrets=given, **more)

    async def restart(self, *, wiped: bool = True) -> None:
        """End the agent and begin another; `wiped` is a reboot, which empties what is in memory and ends what runs."""
        await self.agent.close()
        host, clock = self.agent.runtime.host, self.agent.clock
        if wiped:
            self.agent.runtime.reboot()
            shutil.rmtree(self.data / "memory", ignore_errors=True)
        self.agent = Agent(self.data, self.link, store=self.store)
        self.agent.runtime.host = host
        self.agent.clock.advance(max(0.0, (clock.now() - self.agent.clock.now()).total_seconds()))

    def file(self, name: str = "password") -> str | None:
        found = [path for path in (self.data / "memory").glob(f"{APP}.main.*/{name}") if path.is_file()]
        assert len(found) <= 1
        return found[0].read_text() if found else None

    def on_disk(self) -> bytes:
        """Return every byte below the data directory that is not in memory, and of the database."""
        files = [path for path in self.data.rglob("*") if path.is_file()]
        kept = [path.read_bytes() for path in files if self.data / "memory" not in path.parents]
        return b"".join(kept) + repr(vars(self.store)).encode()

    def events(self) -> str:
        """Return what the agents have noted so far, as they tell the hub."""
        queued = [msgspec.json.decode(queued.envelope) for queued in self.store.reports(1000)]
        told = [report_of(envelope) for envelope in queued]
        told += [report for reports in self.link.reports for report in reports]
        by_sequence = {report.sequence: report.events for report in told}
        return repr(by_sequence)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[Host]:
    made = Host(tmp_path)
    yield made
    await made.agent.close()


PASSWORD = SecretUse(name="password", path="password", overlap="1h")


def later(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.rule("SECRET-1")
async def test_an_application_finds_its_secret_in_memory_and_nothing_else_does(host: Host) -> None:
    variable = SecretUse(name="password", env="PASSWORD")
    one = host.release("1", PASSWORD, variable)
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    assert host.file() == OLD
    (run,) = host.agent.runtime.host.runs.values()
    assert host.file() == OLD
    assert f"{host.data}/memory/{APP}.main." in run.spec.env["SKERRY_SECRETS"]
    assert "PASSWORD" not in run.spec.env
    assert run.spec.secret_env["PASSWORD"].read_text() == OLD
    for path in (Path(run.spec.env["SKERRY_SECRETS"], "password"), run.spec.secret_env["PASSWORD"]):
        assert path.stat().st_mode & 0o777 == 0o400
    assert (host.data / "memory").stat().st_mode & 0o777 == 0o700
    assert host.agent.observed.secrets == {"password": 1}
    everywhere = host.on_disk() + repr(host.agent.observed).encode() + repr(host.agent.secrets).encode()
    assert OLD.encode() not in everywhere + host.events().encode()


async def test_a_release_waits_for_a_secret_that_has_no_value_and_the_good_one_runs_on(host: Host) -> None:
    plain, needy = host.release("1"), host.release("2", PASSWORD)
    await host.desire({"1": plain})
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"2": needy})
    await host.agent.steps()
    view = host.agent.observed.applications[APP]
    assert (view.release, view.why) == (f"{APP}@1", "waiting for a value of secret password")
    await host.desire({"2": needy}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("2"))
    assert host.file() == OLD


@pytest.mark.rule("SECRET-3")
async def test_a_value_that_is_to_come_is_used_from_its_time_on_after_a_reboot_and_with_no_link(
    host: Host,
) -> None:
    one = host.release("1", PASSWORD)
    await host.desire({"1": one}, host.seal(OLD, 1), host.seal(NEW, 2, not_before=later(600)))
    await host.agent.until(lambda: host.agent.runs("1"))
    assert host.file() == OLD
    await host.restart()
    await host.agent.until(lambda: host.file() == OLD)
    assert host.agent.clock.now() < later(600)
    host.agent.clock.advance(600.0)
    await host.agent.until(lambda: host.file() == NEW)
    assert host.file("password.previous") == OLD
    await host.restart()
    await host.agent.until(lambda: host.file() == NEW)
    assert host.file("password.previous") == OLD
    host.agent.clock.advance(3600.0)
    await host.agent.until(lambda: host.file("password.previous") is None)
    assert host.file() == NEW
    entries = host.agent.secrets._parts.vault.state.entries.values()  # pyright: ignore[reportPrivateUsage]
    assert [entry.version for entry in entries] == [2], "what nobody needs is not kept"


@pytest.mark.rule("SECRET-3")
async def test_neither_expiry_nor_a_document_without_it_nor_a_lost_database_takes_a_value_away(
    host: Host,
) -> None:
    one = host.release("1", PASSWORD)
    await host.desire({"1": one}, host.seal(OLD, 1, expires_at=later(60)))
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one})
    host.agent.clock.advance(120.0)
    await host.agent.steps(2)
    assert host.file() == OLD
    assert "secret.expired" in host.events()
    host.store = MemoryAgentStore()
    await host.restart(wiped=False)
    await host.agent.steps(2)
    assert host.file() == OLD


@pytest.mark.rule("SECRET-3")
async def test_a_vault_that_is_damaged_is_filled_again_from_what_is_desired(host: Host) -> None:
    one = host.release("1", PASSWORD)
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    (host.data / "vault" / "vault.bin").write_bytes(b"skerry-vault-1\nnonsense")
    await host.restart()
    await host.agent.until(lambda: host.file() == OLD)
    assert "secret.vault_lost" in host.events()


@pytest.mark.rule("SECRET-4")
async def test_what_was_revoked_is_wiped_and_not_taken_again_from_an_older_document(host: Host) -> None:
    one, first = host.release("1", PASSWORD), host.seal(OLD, 1)
    await host.desire({"1": one}, first)
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one}, host.seal(NEW, 2), revoked_secrets=(first.id,))
    await host.agent.until(lambda: host.file() == NEW)
    assert host.file("password.previous") is None, "it is not even left beside the new one"
    await host.restart()
    # The database was lost, so that any generation is taken for new; the vault is a file of its own.
    host.store, host.generation = MemoryAgentStore(), 0
    await host.restart()
    await host.desire({"1": one}, first)
    await host.agent.steps()
    assert host.file() in (NEW, None)
    assert OLD.encode() not in b"".join(
        p.read_bytes() for p in (host.data / "memory").rglob("*") if p.is_file()
    )


@pytest.mark.rule("SECRET-4")
async def test_a_last_value_that_is_revoked_is_taken_away(host: Host) -> None:
    one, first = host.release("1", PASSWORD), host.seal(OLD, 1)
    await host.desire({"1": one}, first)
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one}, revoked_secrets=(first.id,))
    await host.agent.until(lambda: host.file() is None)
    assert "secret.wiped" in host.events()
    # The database was lost, so that any generation is taken for new; the vault is a file of its own.
    host.store, host.generation = MemoryAgentStore(), 0
    await host.restart()
    await host.desire({"1": one}, first)
    await host.agent.steps()
    assert host.file() is None
    assert host.agent.observed.secrets == {}


@pytest.mark.rule("SECRET-2")
async def test_what_was_sealed_to_another_host_or_as_something_else_is_refused_and_told_once(
    host: Host,
) -> None:
    one, own = host.release("1", PASSWORD), host.seal(OLD, 1)
    moved = msgspec.structs.replace(own, version=9)
    foreign = msgspec.structs.replace(host.seal(OLD, 3), key="0" * 64)
    await host.desire({"1": one}, moved, foreign)
    await host.agent.steps()
    assert host.file() is None
    assert host.events().count("secret.sealed_otherwise") == 1
    assert host.events().count("secret.other_key") == 1


async def test_a_value_that_was_sealed_to_the_key_before_opens_after_the_keys_were_changed(
    host: Host,
) -> None:
    one, before = host.release("1", PASSWORD), host.seal(OLD, 1)
    host.agent.keys.stage()
    host.agent.keys.promote()
    await host.desire({"1": one}, before)
    await host.agent.until(lambda: host.file() == OLD)


async def test_what_an_application_used_is_wiped_and_told_when_it_leaves(host: Host) -> None:
    await host.desire({"1": host.release("1", PASSWORD)}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({})
    await host.agent.until(lambda: not host.agent.observed.applications)
    await host.agent.steps(2)
    assert list((host.data / "memory").iterdir()) == []
    assert host.agent.secrets._parts.vault.state.entries == {}  # pyright: ignore[reportPrivateUsage]
    assert "secret.wiped" in host.events()
    assert host.agent.observed.secrets == {}


async def test_the_host_s_keys_are_opened_once_for_what_is_new_and_not_for_what_was_left_behind(
    host: Host,
) -> None:
    class CountingKeys(KeyFiles):
        opened = 0

        def sealing_pems(self) -> dict[str, bytes]:
            CountingKeys.opened += 1
            return super().sealing_pems()

    host.agent.keys.__class__ = CountingKeys
    plain = SecretUse(name="password", path="password")
    one = host.release("1", plain)
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one}, host.seal(OLD, 1), host.seal(NEW, 2))
    await host.agent.until(lambda: host.file() == NEW)
    await host.agent.steps()
    assert CountingKeys.opened == 2


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_signal_is_sent_once_after_the_file_was_replaced(host: Host) -> None:
    use = SecretUse(name="password", path="password", on_change=OnSecretChange(signal="HUP"))
    one = host.release("1", use)
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    signals = host.agent.runtime.host.signals
    assert signals == [], "it was started with the value"
    await host.desire({"1": one}, host.seal(OLD, 1), host.seal(NEW, 2))
    await host.agent.until(lambda: bool(signals))
    assert host.file() == NEW
    await host.agent.steps()
    await host.restart(wiped=False)
    await host.agent.steps()
    assert [name for _, name in signals] == ["SIGHUP"]


async def test_a_request_is_repeated_until_it_is_answered(host: Host) -> None:
    change = OnSecretChange(http=HttpProbe(port="http", path="/reload"))
    use = SecretUse(name="password", path="password", on_change=change)
    one = host.release("1", use, ports=(Port(name="http"),))
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one}, host.seal(NEW, 2))
    prober = host.agent.prober
    await host.agent.until(lambda: any(path == "POST /reload" for *_, path in prober.asked))
    (run,) = host.agent.runtime.host.runs.values()
    port = int(run.spec.labels["port.http"])
    prober.answer(port, "POST /reload", None)
    asked = len(prober.asked)
    await host.agent.until(lambda: len(prober.asked) > asked)
    await host.agent.steps()
    told = len(prober.asked)
    await host.agent.steps()
    assert len(prober.asked) == told
    assert "secret.untold" in host.events()


async def test_a_component_that_wants_it_is_started_anew_at_once_and_that_is_no_crash(host: Host) -> None:
    use = SecretUse(name="password", env="PASSWORD", on_change=OnSecretChange(restart=True))
    one = host.release("1", use)
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one}, host.seal(NEW, 2))
    starts = host.agent.runtime.host.starts
    await host.agent.until(lambda: len(starts) == 2)
    await host.agent.steps(8)
    assert len(starts) == 2
    assert "component.ended" not in host.events()
    (run,) = host.agent.runtime.host.runs.values()
    assert run.spec.secret_env["PASSWORD"].read_text() == NEW


# ── power ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("SECRET-3")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("step", (1, 2, 3))
async def test_the_file_is_the_old_or_the_new_one_whenever_the_power_is_cut(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: int, when: Any
) -> None:
    one = host.release("1", PASSWORD)
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    plan = FaultPlan()

    class CutVault(Vault):
        def save(self, state: Any) -> None:
            if state != self.state:
                with plan.around("save"):
                    super().save(state)

    class CutFiles(SecretFiles):
        def _replace(self, path: Path, content: bytes, owner: Owner) -> None:
            with plan.around("replace"):
                super()._replace(path, content, owner)

    parts = host.agent.secrets._parts  # pyright: ignore[reportPrivateUsage]
    parts.vault.__class__, parts.files.__class__ = CutVault, CutFiles
    await host.desire({"1": one}, host.seal(OLD, 1), host.seal(NEW, 2))
    plan.kill(nth=step, when=when)
    with pytest.raises(PowerCut):
        await host.agent.steps()
    assert host.file() in (OLD, NEW), "an agent that dies leaves applications with a value"
    plan.restore_power()
    await host.restart()
    await host.agent.steps(1)
    assert host.file() in (OLD, NEW)
    await host.agent.until(lambda: host.file() == NEW)


async def test_a_full_disk_or_no_memory_keeps_what_there_is_and_is_told(host: Host) -> None:
    one = host.release("1", PASSWORD)
    parts = host.agent.secrets._parts  # pyright: ignore[reportPrivateUsage]
    root, parts.files.root = parts.files.root, None
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.steps()
    assert "no file system in memory" in host.agent.observed.applications[APP].why
    assert "secret.trouble" in host.events()
    parts.files.root = root
    await host.agent.until(lambda: host.agent.runs("1"))


def test_a_reader_never_finds_a_file_that_is_half_written_or_not_there(tmp_path: Path) -> None:
    files, stop, seen = SecretFiles(tmp_path / "memory"), threading.Event(), set[bytes]()
    values = [bytes([65 + number]) * 8192 for number in range(2)]
    files.put("app", {"key": values[0]}, Owner(), mark=0)
    place = files.folder("app") / "key"

    def read() -> None:
        while not stop.is_set():
            seen.add(place.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        files.put("app", {"key": values[turn % 2]}, Owner(), mark=turn)
    stop.set()
    reader.join()
    assert seen <= set(values)


def test_what_a_container_s_user_may_read_is_closed_to_others_by_the_directory(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path / "memory")
    before = os.umask(0o077)
    files.put("app", {"a/key": b"1", "b": b"2"}, Owner(container=True), mark=1)
    os.umask(before)
    assert (files.folder("app") / "a").stat().st_mode & 0o777 == 0o755
    assert (files.folder("app") / "a" / "key").stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o700
    files.put("app", {"b": b"2"}, Owner(container=True), mark=2)
    assert [path.name for path in files.folder("app").rglob("*")] == ["b"]
    assert files.forget(frozenset()) == ["app"]
    (tmp_path / "link").symlink_to(tmp_path / "memory")
    with pytest.raises(Unavailable, match="somebody else's"):
        SecretFiles(tmp_path / "link").put("app", {"b": b"2"}, Owner(), mark=1)
    with pytest.raises(Unavailable):
        SecretFiles(None).put("app", {}, Owner(), mark=1)


def test_all_files_are_wiped_also_by_who_is_told_of_another_place_and_nobody_else_s_are(
    tmp_path: Path,
) -> None:
    note, put = tmp_path / "data" / "files-in", tmp_path / "memory"
    SecretFiles(put, note).put("app", {"a/key": b"1"}, Owner(), mark=1)
    assert SecretFiles(tmp_path / "elsewhere", note).wipe()
    assert not put.exists()
    assert not SecretFiles(put, note).wipe()
    assert not SecretFiles(None).wipe()
    (tmp_path / "theirs" / "app").mkdir(parents=True)
    put.symlink_to(tmp_path / "theirs")
    assert not SecretFiles(put, note).wipe()
    assert (tmp_path / "theirs" / "app").is_dir()


def test_only_what_is_in_memory_is_taken_for_memory(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    place, disk = tmp_path / "fast", tmp_path / "disk"
    place.mkdir()
    disk.mkdir()
    mounts.write_text(
        f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {place} rw,nosuid shared:1 - tmpfs tmpfs rw\nbroken\n"
    )
    found = find_memory_folder(tmp_path, {"SKERRY_RUN_DIR": str(place)}, mounts)
    assert found is not None
    assert found.parent == place
    assert found == find_memory_folder(tmp_path, {"SKERRY_RUN_DIR": str(place)}, mounts)
    assert found != find_memory_folder(disk, {"SKERRY_RUN_DIR": str(place)}, mounts)
    assert find_memory_folder(tmp_path, {"SKERRY_RUN_DIR": str(disk)}, mounts) is None
    assert find_memory_folder(tmp_path, {}, tmp_path / "absent") is None
