"""What certificates may say: checked by our own rules and by the openssl program."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.errors import Rejected, Untrusted
from skerry.spec.pki import RevokedAuthority
from skerry.trust import local_certificates
from skerry.trust.authorities import (
    Issuing,
    check_chain,
    check_crl,
    inspect_authority,
    issue_issuer,
    make_crl,
    make_request,
    make_root,
    new_key,
    requested_key,
    revoked_by,
)
from skerry.trust.local_certificates import Leaf, LeafNames, issue_leaf
from skerry.trust.pki import (
    BACKDATE,
    LEAF_LIFE,
    add_revoked,
    bounds_of,
    check_names,
    is_leaf_due,
    life_of,
    spiffe_id,
)
from tests.unit.pki_world import DOMAIN, Root, intermediate, openssl_verify

pytestmark = [
    pytest.mark.trust,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program"),
]

LATEST = datetime(2090, 1, 1)  # noqa: DTZ001 - hypothesis takes bounds without a zone
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WEB = LeafNames(
    subject="web",
    dns=(f"web.harbour.{DOMAIN}", f"*.cam.harbour.{DOMAIN}", "web.site.internal", "localhost"),
    addresses=("10.1.2.3", "127.0.0.1", "::1"),
    uris=(spiffe_id(DOMAIN, "harbour", "web"),),
)
OUTSIDE = (
    LeafNames(subject="web", dns=(f"web.north.{DOMAIN}",)),
    LeafNames(subject="web", dns=(f"harbour.{DOMAIN}.evil.example",)),
    LeafNames(subject="web", dns=(f"xharbour.{DOMAIN}",)),
    LeafNames(subject="web", dns=(DOMAIN,)),
    LeafNames(subject="web", dns=(f"*.{DOMAIN}",)),
    LeafNames(subject="web", addresses=("10.2.0.1",)),
    LeafNames(subject="web", addresses=("2001:db8::1",)),
)


def nothing_wrong(*_: object, **__: object) -> list[str]:
    return []


def issue(host: Issuing, names: LeafNames, now: datetime = NOW) -> Leaf:
    return issue_leaf(host, names, domain=DOMAIN, now=now)


@pytest.mark.rule("PKI-1")
def test_what_a_site_issues_is_accepted_for_its_own_names_by_openssl(tmp_path: Path) -> None:
    root = Root(NOW)
    leaf = issue(intermediate(root, "edge", NOW), WEB)
    for name in (f"web.harbour.{DOMAIN}", f"two.cam.harbour.{DOMAIN}", "web.site.internal", "localhost"):
        assert openssl_verify(tmp_path, leaf.chain, root.pem, NOW, name=name) == ""
    assert "hostname mismatch" in openssl_verify(
        tmp_path, leaf.chain, root.pem, NOW, name=f"api.harbour.{DOMAIN}"
    )
    assert leaf.not_after == NOW + LEAF_LIFE


@pytest.mark.rule("PKI-1")
@pytest.mark.parametrize("names", OUTSIDE, ids=lambda names: "".join((*names.dns, *names.addresses)))
def test_what_a_host_may_not_name_it_refuses_to_issue_and_openssl_refuses_to_believe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: LeafNames
) -> None:
    root = Root(NOW)
    host = intermediate(root, "edge", NOW)
    with pytest.raises(Rejected, match="may not issue"):
        issue(host, names)
    # A host that somebody has taken over does not ask our check.
    monkeypatch.setattr(local_certificates, "check_names", nothing_wrong)
    stolen = issue(host, names)
    assert "permitted subtree violation" in openssl_verify(tmp_path, stolen.chain, root.pem, NOW)


@pytest.mark.parametrize(
    "uri", ("spiffe://other/site/a/app/b", f"spiffe://{DOMAIN}/", f"spiffe://{DOMAIN}/a/../b", "https://x/y")
)
def test_a_spiffe_id_is_in_the_trust_domain_and_well_formed(uri: str) -> None:
    bounds = bounds_of("harbour", DOMAIN, ())
    assert check_names(bounds, dns=(), addresses=(), uris=(uri,), domain=DOMAIN)


def test_an_intermediate_may_issue_no_further_intermediate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(NOW)
    host = intermediate(root, "edge", NOW)
    key = new_key()
    below = issue_issuer(host, make_request(key, "another"), f"harbour.{DOMAIN}", NOW)
    chain = Issuing(key, (below + host.chain.decode()).encode())
    leaf = issue(chain, LeafNames(subject="web", dns=(f"web.harbour.{DOMAIN}",)))
    assert "path length constraint exceeded" in openssl_verify(tmp_path, leaf.chain, root.pem, NOW)


@pytest.mark.rule("PKI-3")
def test_a_revoked_intermediate_is_refused_by_whoever_has_the_list(tmp_path: Path) -> None:
    root = Root(NOW)
    lost, other = intermediate(root, "lost", NOW), intermediate(root, "edge", NOW)
    own = {name: make_crl(host, (), NOW) for name, host in (("lost", lost), ("edge", other))}
    leaf, kept = issue(lost, WEB), issue(other, WEB)
    lists = root.crl + own["lost"] + own["edge"]
    assert openssl_verify(tmp_path, leaf.chain, root.pem, NOW, crl=lists) == ""
    one = root.revoke("lost", NOW)
    lists = root.crl + own["lost"] + own["edge"]
    assert "certificate revoked" in openssl_verify(tmp_path, leaf.chain, root.pem, NOW, crl=lists)
    assert openssl_verify(tmp_path, kept.chain, root.pem, NOW, crl=lists) == ""
    years = NOW + timedelta(days=7)
    later = issue(other, WEB, years)
    assert openssl_verify(tmp_path, later.chain, root.pem, years, crl=lists) == "", "a list does not run out"
    assert revoked_by(root.crl) == {one.serial}
    check_crl(root.crl, root.pem)
    with pytest.raises(Untrusted, match="another issuer"):
        check_crl(root.crl, other.chain.decode())


def test_an_offline_root_issues_to_a_hub_which_issues_to_hosts(tmp_path: Path) -> None:
    root = make_root("Company root", NOW)
    key = new_key()
    hub = Issuing(key, issue_issuer(root, make_request(key, "Skerry hub"), DOMAIN, NOW).encode())
    own = Root(NOW)
    own.issuer = hub
    host = intermediate(own, "edge", NOW)
    leaf = issue(host, WEB)
    assert leaf.chain.count("BEGIN CERTIFICATE") == 3
    assert openssl_verify(tmp_path, leaf.chain, root.chain.decode(), NOW) == ""
    assert check_chain(host.chain.decode(), [own.pem, root.chain.decode()]) != ""
    with pytest.raises(Untrusted, match="no root that is trusted"):
        check_chain(host.chain.decode(), [make_root("another", NOW).chain.decode()])


def test_a_request_proves_that_whoever_asks_has_the_key() -> None:
    request = make_request(new_key(), "edge")
    assert len(requested_key(request)) == 64
    lines = request.splitlines()
    lines[4] = lines[4][::-1]
    for text in ("\n".join(lines), "", "nonsense", request.replace("REQUEST", "CERTIFICATE")):
        with pytest.raises(Untrusted):
            requested_key(text)


@pytest.mark.rule("PKI-2")
def test_an_intermediate_outlasts_twice_the_tolerance_and_is_never_longer_than_its_issuer() -> None:
    assert life_of(timedelta(minutes=5)) == timedelta(days=360)
    assert life_of(timedelta(days=400)) == timedelta(days=800)
    root = Root(NOW)
    late = NOW + timedelta(days=20 * 365 - 100)
    found = inspect_authority(intermediate(root, "edge", late).chain.decode())
    assert found.not_after == inspect_authority(root.pem).not_after
    with pytest.raises(Rejected, match="ran out"):
        issue(intermediate(root, "edge", NOW), WEB, NOW + timedelta(days=361))


@given(issued=st.datetimes(timezones=st.just(UTC), max_value=LATEST), off=st.integers(-30, 30))
def test_a_certificate_from_a_wrong_clock_is_renewed(issued: datetime, off: int) -> None:
    now = issued + timedelta(days=off)
    due = is_leaf_due(issued, issued + LEAF_LIFE, now)
    assert due == (off >= 5 or now < issued - BACKDATE)


_revoked = st.builds(
    RevokedAuthority,
    serial=st.sampled_from(["01", "02", "03", "0a"]),
    key=st.just("ab" * 32),
    not_after=st.sampled_from([NOW + timedelta(days=day) for day in (-1, 1, 2)]),
)


@pytest.mark.rule("PKI-3")
@given(st.lists(_revoked), st.lists(_revoked))
def test_who_is_revoked_stays_revoked_whatever_is_told_next(
    held: list[RevokedAuthority], told: list[RevokedAuthority]
) -> None:
    after = {one.serial for one in add_revoked(add_revoked((), held, NOW), told, NOW)}
    assert after == {one.serial for one in (*held, *told) if one.not_after > NOW}
