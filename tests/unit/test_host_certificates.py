"""Certificates on a host: asked for, renewed without a link, taken back; whatever is cut off when."""

from __future__ import annotations

import base64
import shutil
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.agent.authority import HostAuthority
from skerry.agent.certificate_files import CertificateFolders, CertificateNote
from skerry.agent.keys import KeyFiles
from skerry.agent.secret_files import Owner
from skerry.agent.site_ca import CertificateFiles, LocalCertificates, Wanted
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Bug
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Bundle,
    CertificateUse,
    Component,
    HttpProbe,
    OnSecretChange,
    Port,
)
from skerry.spec.desired import ReleaseRef
from skerry.spec.documents import check_release
from skerry.spec.metadata import Metadata
from skerry.spec.pki import SitePki
from skerry.spec.release import Release
from skerry.testing.clock import SimulatedClock
from skerry.testing.faults import FaultPlan, PowerCut
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.authorities import certificates_of, load_key
from tests.unit.agent_world import APP, Agent, Upstream
from tests.unit.pki_world import DOMAIN, Root, openssl_verify
from tests.unit.upstream import NOW

pytestmark = pytest.mark.trust

WEB = Wanted("web", dns=(f"web.harbour.{DOMAIN}",))
DAY_S = 86400.0


class Machine:
    """What issues certificates on one host, without the rest of its agent."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = SimulatedClock(NOW)
        self.root = Root(NOW)
        self.notes: list[tuple[str, str]] = []
        self.begin()

    def begin(self) -> None:
        """Begin with what is on the disk and in memory."""
        self.authority = HostAuthority(
            self.data, KeyFiles(self.data), host="edge", now=self.clock.now, note=self._note
        )
        folders = CertificateFolders(self.data / "memory")
        self.local = LocalCertificates(
            self.authority, folders, self.clock, site="harbour", now=self.clock.now
        )

    def reboot(self) -> None:
        """Begin without what was in memory."""
        shutil.rmtree(self.data / "memory", ignore_errors=True)
        self.begin()

    def exchange(self, pki: SitePki | None = None) -> SitePki:
        """Tell the hub and follow its answer until neither has more to say."""
        pki = pki or self.root.pki()
        for _ in range(4):
            self.authority.follow(pki)
            pki = self.root.answer({"edge": self.authority.view(pki)}, self.clock.now())
        self.authority.follow(pki)
        assert self.authority.is_settled(pki)
        return pki

    def ask(self, wanted: Wanted = WEB) -> CertificateFiles:
        files = self.local.ask(wanted)
        assert files is not None, self.local.why(wanted.name)
        assert_match(files)
        return files

    def _note(self, kind: str, message: str = "") -> None:
        self.notes.append((kind, message))


def assert_match(files: CertificateFiles) -> None:
    """Find that key and certificate belong together."""
    certificate = certificates_of(files.cert.read_bytes())[0]
    assert load_key(files.key.read_bytes()).public_key() == certificate.public_key()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.rule("PKI-4")
def test_the_key_of_the_intermediate_is_made_here_and_on_no_disk_in_clear(machine: Machine) -> None:
    assert machine.local.ask(WEB) is None
    assert "has not issued" in machine.local.why("web")
    pki = machine.exchange()
    files = machine.ask()
    assert openssl_verify(machine.data, files.cert.read_bytes(), machine.root.pem, NOW) == ""
    assert files.bundle.read_text() == machine.root.pem
    key = machine.authority.state.key
    on_disk = b"".join(path.read_bytes() for path in machine.data.rglob("*") if path.is_file())
    told = msgspec.json.encode((pki, machine.authority.view(pki))) + repr(machine.notes).encode()
    # In JSON bytes are in base64: whoever finds them there has the key as well.
    for needle in (key.splitlines()[1], base64.b64encode(key)[:80]):
        assert needle not in on_disk + told
    assert key.splitlines()[1] not in repr(machine.authority.state).encode()
    assert machine.authority.view(pki).request == "", "what the hub has is not told again"
    assert machine.authority.view(pki).crl == ""


@pytest.mark.rule("PKI-2")
def test_certificates_are_renewed_without_a_link_until_the_intermediate_runs_out(machine: Machine) -> None:
    machine.exchange()
    told: list[tuple[str, str]] = []
    machine.local.on_renewed.append(lambda folder, name: told.append((folder, name)))
    first = machine.ask()
    machine.clock.advance(4.6 * DAY_S)
    assert machine.ask() == first
    serials, end = {first.serial}, machine.authority.state.not_after
    assert end is not None
    while machine.clock.now() < end - timedelta(days=1):
        machine.clock.advance(min(DAY_S, (end - machine.clock.now()).total_seconds()))
        if machine.clock.now() < end:
            files = machine.ask()
            assert files.not_after > machine.clock.now()
            serials.add(files.serial)
    # 360 days, two thirds of seven days each, and shorter ones at its end.
    assert len(serials) >= 72
    assert set(told) == {("host", "web")}
    assert len(told) == len(serials)
    machine.clock.advance(2 * DAY_S)
    assert machine.local.ask(WEB) is None
    assert "ran out" in machine.local.why("web")


@pytest.mark.rule("PKI-5")
def test_a_host_whose_intermediate_has_run_out_gets_another_for_the_same_key(machine: Machine) -> None:
    pki = machine.exchange()
    machine.ask()
    machine.clock.advance(400 * DAY_S)
    assert machine.local.ask(WEB) is None
    machine.root.grant("edge", pki.hosts["edge"].chain, machine.clock.now())
    machine.exchange()
    assert machine.ask().not_after > machine.clock.now()


def test_a_reboot_without_a_link_issues_anew_and_a_restart_alone_does_not(machine: Machine) -> None:
    machine.exchange()
    files = machine.ask()
    machine.begin()
    machine.authority.follow(machine.root.pki())
    assert machine.ask() == files
    machine.reboot()
    machine.authority.follow(SitePki())
    assert machine.ask().serial != files.serial


@pytest.mark.rule("PKI-6")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("step", range(1, 8))
def test_key_and_certificate_match_whenever_the_power_is_cut_during_a_renewal(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, step: int, when: Any
) -> None:
    machine.exchange()
    before = machine.ask()
    plan = FaultPlan()
    for name in ("mkdir", "chmod", "replace", "symlink_to", "unlink"):
        real = getattr(Path, name)

        def cut(self: Path, *args: Any, _real: Any = real, **how: Any) -> Any:
            with plan.around("step"):
                return _real(self, *args, **how)

        monkeypatch.setattr(Path, name, cut)
    machine.clock.advance(5 * DAY_S)
    plan.kill("step", nth=step * 3, when=when)
    with pytest.raises(PowerCut):
        machine.local.ask(WEB)
    monkeypatch.undo()
    assert_match(before)
    machine.begin()
    machine.authority.follow(machine.root.pki())
    assert machine.ask().not_after > machine.clock.now() + timedelta(days=5)


def test_a_clock_that_was_wrong_is_got_over(machine: Machine) -> None:
    machine.exchange()
    machine.clock.jump(timedelta(days=200))
    ahead = machine.ask()
    machine.clock.jump(-timedelta(days=200))
    back = machine.ask()
    assert back.serial != ahead.serial
    assert openssl_verify(machine.data, back.cert.read_bytes(), machine.root.pem, machine.clock.now()) == ""


@pytest.mark.rule("PKI-1")
def test_names_of_elsewhere_are_refused_and_say_why(machine: Machine) -> None:
    machine.exchange()
    assert machine.local.ask(Wanted("api", dns=(f"api.north.{DOMAIN}",))) is None
    assert f"api.north.{DOMAIN} is not below harbour.{DOMAIN}" in machine.local.why("api")
    assert "api" in machine.local.trouble
    with pytest.raises(Bug):
        machine.local.ask(Wanted("../web"))


@pytest.mark.rule("PKI-3")
def test_a_list_that_leaves_out_what_was_revoked_is_not_taken(machine: Machine) -> None:
    other = machine.root.grant("lost", machine.authority.state.request or request(), NOW)
    before = machine.root.crl
    machine.exchange()
    machine.root.revoke("lost", NOW)
    machine.exchange()
    assert machine.root.crl in machine.ask().crl.read_text()
    after, machine.root.crl = machine.root.crl, before
    machine.root.revoked = []
    machine.exchange()
    assert after in machine.ask().crl.read_text()
    assert "pki.crl_refused" in repr(machine.notes)
    machine.reboot()
    machine.authority.follow(machine.root.pki())
    assert after in machine.ask().crl.read_text()
    assert other.serial in {one.serial for one in machine.authority.state.revoked}


@pytest.mark.rule("PKI-3")
def test_a_host_whose_own_is_revoked_stops_and_asks_with_another_key(machine: Machine) -> None:
    pki = machine.exchange()
    machine.ask()
    machine.root.revoke("edge", NOW)
    machine.authority.follow(machine.root.pki())
    assert machine.local.ask(Wanted("api", dns=(f"api.harbour.{DOMAIN}",))) is None
    fresh = machine.authority.view(machine.root.pki())
    assert fresh.request
    machine.exchange()
    assert machine.authority.state.key_hash != pki.hosts["edge"].key
    machine.ask()


def test_a_chain_of_another_root_or_another_key_is_refused(machine: Machine) -> None:
    machine.authority.follow(machine.root.pki())
    mine = machine.authority.state
    other = Root(NOW)
    wrong = other.grant("edge", mine.request, NOW)
    machine.authority.follow(msgspec.structs.replace(machine.root.pki(), hosts={"edge": wrong}))
    stranger = msgspec.structs.replace(machine.root.grant("edge", request(), NOW), key=mine.key_hash)
    machine.authority.follow(msgspec.structs.replace(machine.root.pki(), hosts={"edge": stranger}))
    assert machine.authority.state.chain == ""
    assert [kind for kind, _ in machine.notes] == ["pki.refused", "pki.refused"]


def test_a_damaged_file_is_set_aside_and_another_key_is_asked_for(machine: Machine) -> None:
    machine.exchange()
    machine.authority.path.write_bytes(b"nonsense")
    machine.reboot()
    machine.exchange()
    machine.ask()
    assert "pki.key_lost" in repr(machine.notes)


def test_what_another_bundle_brings_changes_files_and_not_the_certificate(machine: Machine) -> None:
    machine.exchange()
    first = machine.ask()
    second = Root(NOW)
    pki = machine.root.pki()
    machine.authority.follow(msgspec.structs.replace(pki, roots=(second.pem, *pki.roots)))
    files = machine.ask()
    assert files.serial == first.serial
    assert files.mark != first.mark
    assert files.bundle.read_text() == second.pem + machine.root.pem


def test_keys_are_readable_by_who_uses_them_alone(tmp_path: Path) -> None:
    folders = CertificateFolders(tmp_path / "memory")
    note = CertificateNote(
        serial="01", issuer="02", issued_at=NOW, placed_at=NOW, not_after=NOW, wanted="", trusted="ab"
    )
    place = folders.put("host", "web", {"cert.pem": b"c", "key.pem": b"k"}, note, Owner())
    assert (place / "key.pem").stat().st_mode & 0o777 == 0o400
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o700
    for number in range(3, 6):
        note = msgspec.structs.replace(note, serial=f"{number:02d}")
        folders.put("host", "web", {"cert.pem": b"c", "key.pem": b"k"}, note, Owner())
    assert len(list((tmp_path / "memory" / "host").iterdir())) == 3, "a link, its directory, the one before"
    folders.keep("host", set())
    assert folders.folders() == set()


# ── with the rest of the agent ───────────────────────────────────────────────────────────────────────


class Host:
    """A host with its agent, and a root that answers it."""

    def __init__(self, data: Path) -> None:
        self.link = Upstream()
        self.agent = Agent(data, self.link, store=MemoryAgentStore())
        self.root = Root(NOW)
        self.data = data
        self.generation = 0

    def release(self, version: str, *uses: CertificateUse, ports: tuple[Port, ...] = ()) -> ReleaseRef:
        """Hold a signed release of a process that uses certificates."""
        bundle = Bundle(files=(self.link.add(version.encode(), "run"),))
        command = ("./run", "${certificates}/web/cert.pem") if uses else ("./run",)
        component = Component(name="main", bundle=bundle, command=command, certificates=uses, ports=ports)
        found = Release(
            application=Application(
                metadata=Metadata(APP), spec=ApplicationSpec(version=version, components=(component,))
            )
        )
        assert not check_release(found)
        document = encode_canonical(found)
        self.link.contents[digest_of(document)] = document
        self.link.signed.vouch(found)
        publisher = self.link.signed.publisher.name
        return ReleaseRef(digest=digest_of(document), size_bytes=len(document), publisher=publisher)

    async def desire(self, assigned: dict[str, ReleaseRef], *, pki: bool = True) -> None:
        self.generation += 1
        told = {"edge": self.agent.observed.pki}
        given = self.root.answer(told, self.agent.clock.now()) if pki else self.root.pki()
        await self.agent.desire(self.generation, assigned, pki=given)

    def file(self, name: str = "web/cert.pem") -> str | None:
        found = list((self.data / "memory-certificates").glob(f"{APP}.main.*/{name}"))
        return found[0].read_text() if found else None


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[Host]:
    made = Host(tmp_path)
    yield made
    await made.agent.close()


async def test_a_component_finds_its_certificates_and_waits_for_them(host: Host) -> None:
    one = host.release("1", CertificateUse(name="web", dns=("api", "localhost")))
    await host.desire({"1": one}, pki=False)
    await host.agent.steps(8)
    assert "waiting for its certificates" in host.agent.observed.applications[APP].why
    await host.desire({"1": one})
    await host.agent.until(lambda: host.agent.runs("1"))
    cert = certificates_of(host.file() or "")[0]
    (run,) = host.agent.runtime.host.runs.values()
    assert run.spec.command[1] == f"{run.spec.env['SKERRY_CERTIFICATES']}/web/cert.pem"
    assert run.spec.command[1] in [str(path) for path in host.data.glob("memory-certificates/*/web/cert.pem")]
    names = host.agent.observed.pki.certificates
    assert [one.names for one in names.values()] == [
        (
            f"{APP}.harbour.{DOMAIN}", f"api.harbour.{DOMAIN}", "localhost", "127.0.0.1", "::1",
            f"spiffe://{DOMAIN}/site/harbour/app/{APP}",
        )
    ]  # fmt: skip
    assert cert.serial_number.to_bytes(20).hex().endswith(next(iter(names.values())).serial)


@pytest.mark.parametrize(
    "change",
    (OnSecretChange(signal="HUP"), OnSecretChange(http=HttpProbe(port="http", path="/reload"))),
    ids=("signal", "http"),
)
async def test_who_runs_is_told_of_a_renewal_once(host: Host, change: OnSecretChange) -> None:
    one = host.release("1", CertificateUse(name="web", on_change=change), ports=(Port(name="http"),))
    await host.desire({"1": one})
    await host.agent.steps(2)
    await host.desire({"1": one})
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one})
    await host.agent.steps()
    (port,) = [view.labels["port.http"] for view in (await host.agent.runtime.instances()).values()]
    host.agent.prober.answer(int(port), "POST /reload", None)
    before, signals, prober = host.file(), host.agent.runtime.host.signals, host.agent.prober
    signals.clear()
    host.agent.clock.advance(5 * DAY_S)
    await host.agent.until(lambda: host.file() != before)
    await host.agent.steps()
    assert len(signals) + len([one for one in prober.asked if "POST" in one[2]]) == 1


async def test_one_that_asks_for_it_is_restarted_and_all_goes_with_the_application(host: Host) -> None:
    use = CertificateUse(name="web", on_change=OnSecretChange(restart=True))
    await host.desire({}, pki=False)
    await host.agent.steps(1)
    one = host.release("1", use)
    await host.desire({"1": one})
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one})
    await host.agent.steps()
    before = [run.started_at for run in host.agent.runtime.host.runs.values()]
    host.agent.clock.advance(5 * DAY_S)
    await host.agent.until(
        lambda: [run.started_at for run in host.agent.runtime.host.runs.values()] not in (before, [])
    )
    await host.desire({})
    await host.agent.until(lambda: host.file() is None)
    await host.agent.until(lambda: not host.agent.observed.pki.certificates)


def request() -> str:
    from skerry.trust.authorities import make_request, new_key

    return make_request(new_key(), "somebody")
