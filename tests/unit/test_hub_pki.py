"""Certificates on a hub: issued to hosts that ask, renewed in time, revoked with their hosts, below another root."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.agent.authority import HostAuthority
from skerry.agent.certificate_files import CertificateFolders
from skerry.agent.keys import KeyFiles
from skerry.agent.site_ca import LocalCertificates, Wanted
from skerry.client.pki_root import make_root_files, sign_request
from skerry.hub.api.app import API_PATH
from skerry.hub.pki_issuing import MAX_LIVE
from skerry.hub.pki_keeping import PkiFile
from skerry.hub.routing import domain_of
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.ports.hub_store import AppliedReport, Audit
from skerry.spec.ingress import Route, route_names
from skerry.spec.pki import HostPki, SitePki
from skerry.spec.report import Observed
from skerry.trust.authorities import check_chain, inspect_authority, make_request, new_key, revoked_by
from skerry.trust.pki import pki_expiries
from tests.unit.test_hub_secrets import Vaulted

pytestmark = pytest.mark.trust

DAY_S = 86400.0


class Fleet(Vaulted):
    """A hub with two sites of one host each; hosts with authorities of their own tell it what they have to say."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.told = 0
        self.hosts = {name: self.machine(name) for name in ("edge-1", "edge-2")}

    def machine(self, name: str) -> HostAuthority:
        folder = self.folder / f"{name}-{self.told}"
        self.told += 1
        return HostAuthority(folder, KeyFiles(folder), host=name, now=self.clock.now, note=lambda *_: None)

    def tell(self, host: str, pki: HostPki) -> None:
        """Let a host report this of its certificates."""
        self.told += 1
        record = self.hub.store.host(host)
        assert record is not None
        now = self.clock.now()
        report = AppliedReport(
            host=host,
            site=record.site,
            sequence=self.told,
            seen_at=now,
            sent_at=now,
            clock_offset_s=0.0,
            generation=1,
            observed=Observed(pki=pki),
        )
        self.hub.store.apply_reports([report])

    async def pki(self, site: str = "harbour") -> SitePki:
        return (await self.issued(site)).pki

    async def exchange(self, host: str = "edge-1", site: str = "harbour") -> SitePki:
        """Let a host follow its site's document, report, and follow again."""
        for _ in range(2):
            pki = await self.pki(site)
            self.hosts[host].follow(pki)
            self.tell(host, self.hosts[host].view(pki))
        pki = await self.pki(site)
        self.hosts[host].follow(pki)
        return pki

    def remove(self, host: str) -> None:
        self.hub.store.remove_host(
            host, Audit(at=self.clock.now(), who="test", action="host.remove", subject=host)
        )


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncGenerator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.hub.store.close()


async def test_a_host_that_asks_is_issued_one_and_the_document_then_stays_the_same(fleet: Fleet) -> None:
    pki = await fleet.exchange()
    own = pki.hosts["edge-1"]
    found = inspect_authority(own.chain)
    assert check_chain(own.chain, pki.roots) == pki.roots[0]
    assert found.bounds.domains == ("harbour.skerry.internal", "site.internal", "localhost")
    assert fleet.hosts["edge-1"].why_none == ""
    assert own.crl == fleet.hosts["edge-1"].state.crl
    before = (await fleet.issued()).generation
    fleet.tell("edge-1", fleet.hosts["edge-1"].view(pki))
    for _ in range(3):
        assert (await fleet.issued()).generation == before
    assert (await fleet.pki("pier")).hosts == {}
    (expiry,) = pki_expiries(pki, {})
    assert (expiry.host, expiry.not_after) == ("edge-1", own.not_after)


async def test_the_next_one_is_issued_from_half_of_its_life_on_for_the_same_key(fleet: Fleet) -> None:
    first = (await fleet.exchange()).hosts["edge-1"]
    fleet.clock.advance(179 * DAY_S)
    assert fleet.hub.pki.due_sites() == set()
    fleet.clock.advance(2 * DAY_S)
    assert fleet.hub.pki.due_sites() == {"harbour"}
    second = (await fleet.exchange()).hosts["edge-1"]
    assert (second.key, second.serial != first.serial) == (first.key, True)
    assert second.not_after > first.not_after
    assert fleet.hosts["edge-1"].state.serial == second.serial
    assert fleet.hub.pki.due_sites() == set()


@pytest.mark.rule("PKI-5")
async def test_a_host_that_was_away_until_it_ran_out_is_renewed_when_it_is_heard_of(fleet: Fleet) -> None:
    await fleet.exchange()
    fleet.clock.advance(400 * DAY_S)
    assert "ran out" in fleet.hosts["edge-1"].why_none
    fleet.hub.pki.due_sites()
    await fleet.exchange()
    assert fleet.hosts["edge-1"].why_none == ""


async def test_other_networks_of_a_site_bring_another_intermediate_at_once(fleet: Fleet) -> None:
    first = (await fleet.exchange()).hosts["edge-1"]
    fleet.clock.advance(60.0)
    document = {
        "apiVersion": "skerry/v1",
        "kind": "Site",
        "metadata": {"name": "harbour"},
        "spec": {"networks": ["10.9.0.0/16"], "offline_tolerance": "400d"},
    }
    fleet.hub.store.apply_documents(sites={"harbour": msgspec.json.encode(document)}, rollouts=[], audits=[])
    second = (await fleet.exchange()).hosts["edge-1"]
    assert second.serial != first.serial
    found = inspect_authority(second.chain)
    assert "10.9.0.0/16" in found.bounds.networks
    assert found.not_after - fleet.clock.now() > timedelta(days=799)
    assert fleet.hosts["edge-1"].state.serial == second.serial


@pytest.mark.rule("PKI-3")
async def test_a_removed_host_is_revoked_and_its_key_never_issued_to_again(fleet: Fleet) -> None:
    fleet.enroll("edge-3", "harbour")
    fleet.hosts["edge-3"] = fleet.machine("edge-3")
    await fleet.exchange()
    lost = (await fleet.exchange("edge-3")).hosts["edge-3"]
    view = fleet.hosts["edge-3"].view(SitePki())
    fleet.remove("edge-3")
    pki = await fleet.exchange()
    assert [one.serial for one in pki.revoked] == [lost.serial]
    assert revoked_by(pki.crls[0]) == {lost.serial}
    assert "edge-3" not in pki.hosts
    assert revoked_by((await fleet.pki("pier")).crls[0]) == frozenset(), "sites hear of their own hosts"
    assert lost.serial in revoked_by(fleet.hosts["edge-1"].state.crls[0])
    fleet.enroll("edge-3", "harbour")
    fleet.tell("edge-3", view)
    assert "edge-3" not in (await fleet.pki()).hosts
    # The machine itself hears of it, and asks with another key.
    await fleet.exchange("edge-3")
    assert (await fleet.pki()).hosts["edge-3"].key != lost.key
    fleet.clock.advance(400 * DAY_S)
    fleet.hub.pki.due_sites()
    assert (await fleet.pki()).revoked == (), "what has run out need not be listed"


@pytest.mark.rule("PKI-3")
async def test_a_hub_that_was_restored_revokes_what_it_has_forgotten(fleet: Fleet) -> None:
    pki = await fleet.exchange()
    forgotten = pki.hosts["edge-1"]
    fleet.hub.store.forget_authorities(fleet.clock.now() + timedelta(days=1000))
    fleet.tell("edge-1", fleet.hosts["edge-1"].view(await fleet.pki()))
    await fleet.exchange()
    fleet.remove("edge-1")
    await fleet.hub.issuer.issue("harbour")
    assert forgotten.serial in {one.serial for one in (await fleet.pki()).revoked}


async def test_a_request_that_is_none_or_one_too_many_keeps_no_other_host_waiting(fleet: Fleet) -> None:
    fleet.enroll("edge-3", "harbour")
    fleet.tell("edge-3", HostPki(request="nonsense"))
    pki = await fleet.exchange()
    assert set(pki.hosts) == {"edge-1"}
    for _ in range(MAX_LIVE + 3):
        fleet.tell("edge-3", HostPki(request=make_request(new_key(), "x")))
        await fleet.hub.issuer.issue("harbour")
    assert len([one for one in fleet.hub.store.authorities() if one.host == "edge-3"]) == MAX_LIVE
    assert "edge-1" in (await fleet.exchange()).hosts


async def test_a_list_that_is_not_the_host_s_own_is_handed_to_nobody(fleet: Fleet) -> None:
    pki = await fleet.exchange()
    good = pki.hosts["edge-1"].crl
    for bad in ("nonsense", pki.crls[0], fleet.machine("edge-9").state.crl):
        fleet.tell("edge-1", HostPki(crl=bad))
        assert (await fleet.pki()).hosts["edge-1"].crl == good


# ── below another root ───────────────────────────────────────────────────────────────────────────────


async def test_a_root_kept_elsewhere_takes_over_while_the_old_one_is_still_trusted(
    fleet: Fleet, tmp_path: Path
) -> None:
    old = await fleet.exchange()
    asked = await fleet.ask("admin", f"{API_PATH}/pki/request", "POST")
    again = await fleet.ask("admin", f"{API_PATH}/pki/request", "POST")
    request, domain = asked.json()["request"], asked.json()["domain"]
    make_root_files(tmp_path / "safe", "Example root", fleet.clock.now())
    assert (tmp_path / "safe" / "root.key").stat().st_mode & 0o777 == 0o600
    signed = sign_request(tmp_path / "safe", again.json()["request"], domain, fleet.clock.now())
    assert "PRIVATE" not in asked.text + request
    for dry_run in (True, False):
        answer = await fleet.ask(
            "admin", f"{API_PATH}/pki/issuer", "POST", json={"pem": signed, "dry_run": dry_run}
        )
        assert answer.status_code == 200, answer.text
        assert ("Example root" in answer.text) is not dry_run
        assert "PRIVATE" not in answer.text
    pki = await fleet.exchange()
    assert pki.hosts == old.hosts, "what was issued holds on"
    assert len(pki.roots) == 2
    assert len(pki.crls) == 3
    fleet.clock.advance(181 * DAY_S)
    assert fleet.hub.pki.due_sites() == {"harbour"}
    pki = await fleet.exchange()
    assert "Example root" in inspect_authority(check_chain(pki.hosts["edge-1"].chain, pki.roots)).subject
    assert fleet.hosts["edge-1"].state.serial == pki.hosts["edge-1"].serial
    fleet.clock.advance(181 * DAY_S)
    fleet.hub.pki.due_sites()
    pki = await fleet.exchange()
    assert [inspect_authority(one).subject for one in pki.roots] == ["CN=Example root"]
    assert len(pki.crls) == 2
    assert (await fleet.ask("viewer", f"{API_PATH}/pki")).json()["issuers"][1]["issues"]


async def test_what_does_not_belong_to_the_request_is_not_imported(fleet: Fleet, tmp_path: Path) -> None:
    make_root_files(tmp_path / "safe", "Example root", fleet.clock.now())
    with pytest.raises(Conflict):
        make_root_files(tmp_path / "safe", "Example root", fleet.clock.now())
    with pytest.raises(Missing):
        sign_request(tmp_path / "nowhere", make_request(new_key(), "x"), "a.example", fleet.clock.now())
    file = PkiFile(tmp_path / "hub", "abc", fleet.clock.now())
    stranger = sign_request(tmp_path / "safe", make_request(new_key(), "x"), "a.example", fleet.clock.now())
    from skerry.trust.authorities import split_pem

    with pytest.raises(Missing, match="nothing was asked for"):
        file.install(*split_pem(stranger))
    mine = sign_request(tmp_path / "safe", file.request(), "a.example", fleet.clock.now())
    with pytest.raises(Rejected, match="not for the key"):
        file.install(*split_pem(stranger))
    chain, root, _ = split_pem(mine)
    with pytest.raises(Rejected, match="no list"):
        file.install(chain, root, [])
    file.install(*split_pem(mine))
    again = PkiFile(tmp_path / "hub", "abc", fleet.clock.now())
    assert again.state == file.state
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(again.state)
    file.path.write_bytes(b"{}")
    with pytest.raises(Rejected, match="damaged"):
        PkiFile(tmp_path / "hub", "abc", fleet.clock.now())


async def test_operators_see_what_was_issued_and_by_whom(fleet: Fleet) -> None:
    await fleet.exchange()
    (view,) = (await fleet.ask("viewer", f"{API_PATH}/pki/authorities?site=harbour")).json()
    assert (view["host"], view["in_use"]) == ("edge-1", True)
    bundle = (await fleet.ask("viewer", f"{API_PATH}/pki/sites/harbour/bundle")).json()
    assert "BEGIN CERTIFICATE" in bundle["roots"][0]
    assert len(bundle["crls"]) == 2
    assert (await fleet.ask("viewer", f"{API_PATH}/pki/sites/nowhere/bundle")).status_code == 404
    assert (await fleet.ask("operator", f"{API_PATH}/pki/request", "POST")).status_code == 403
    secret = fleet.hub.pki.file.issuer.key.splitlines()[1]
    fleet.hub.store.close()
    files = [path for path in fleet.folder.rglob("*") if path.is_file() and path.name != "authorities.json"]
    assert not [path for path in files if secret in path.read_bytes()]
    fleet.hub = msgspec.structs.replace(fleet.hub, store=SqlHubStore.open(fleet.folder / "hub.db"))


async def test_what_an_ingress_asks_for_is_issued_by_a_host_and_planned_for_by_the_hub(
    fleet: Fleet, tmp_path: Path
) -> None:
    await fleet.exchange()
    fleet.hub.pki.domain = "edge.example.com"
    assert domain_of(fleet.hub) == "edge.example.com"
    fleet.clock.advance(60.0)
    await fleet.exchange()
    names = route_names(
        Route(name="main", component="web", port="http"), "reader", "harbour", domain_of(fleet.hub)
    )
    local = LocalCertificates(
        fleet.hosts["edge-1"],
        CertificateFolders(tmp_path / "m"),
        fleet.clock,
        site="harbour",
        now=fleet.clock.now,
    )
    assert local.ask(Wanted("ingress", dns=names, client=False)) is not None, local.why("ingress")
