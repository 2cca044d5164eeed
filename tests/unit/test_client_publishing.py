"""The publisher's machine against the hub's own repository: what it signs, and what it refuses to sign over."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.client.client import Client
from skerry.client.delegating import (
    Signers,
    check_new_publisher,
    holders_of,
    sign_new_publisher,
    sign_publisher_revocation,
    sign_rotation,
)
from skerry.client.key_files import make_key_pair, read_public
from skerry.client.publishing import ATTEMPTS, Publishing, publish_metadata
from skerry.client.resending import find_lost, resend
from skerry.client.signing import open_signers
from skerry.client.sources import PreparedRelease
from skerry.client.vouching import verify_release
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Conflict, Missing, Rejected, Untrusted
from skerry.spec.evidence import Evidence
from skerry.spec.publishing import Revocation
from skerry.trust.keys import SigningKey
from skerry.trust.publishers import custom_of
from skerry.trust.repository import make_snapshot, make_timestamp, sign
from tests.unit.hub_double import TOKEN, HubDouble, serve_hub
from tests.unit.matching_world import component, release
from tests.unit.signing_hub import (
    CLOCK,
    SigningHub,
    in_years,
    machine,
    no_secret,
    publishing_as,
    registered,
)

pytestmark = pytest.mark.trust

EVIDENCE = Evidence(kind="sbom", format="cyclonedx-1.6", digest="sha256:" + "a" * 64, size_bytes=3)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubDouble]:
    with serve_hub(tmp_path) as hub:
        hub.blobs.update({str(file.digest): b"" for file in prepared("1.0.0").release.files()})
        yield hub


@pytest.fixture
def client(hub: HubDouble) -> Iterator[Client]:
    with Client(hub.url, ca_pem=hub.ca_pem, token=TOKEN) as client:
        yield client


@pytest.fixture
def acme(hub: HubDouble, client: Client, tmp_path: Path) -> Publishing:
    return registered(client, hub.signing, tmp_path / "acme")


def prepared(version: str, **extra: Any) -> PreparedRelease:
    made = release(component())
    spec = msgspec.structs.replace(made.application.spec, version=version)
    made = msgspec.structs.replace(made, application=msgspec.structs.replace(made.application, spec=spec))
    return PreparedRelease(made, encode_canonical(made), {}, **extra)


def targets_signers(signing: SigningHub) -> Signers:
    return Signers(open_signers([str(signing.offline / "targets.pem")], no_secret))


def name_of(version: str) -> str:
    return prepared(version).release.name


def test_a_release_is_signed_with_what_is_to_be_known_of_it(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    view, created = acme.publish_release(prepared("1.0.0", evidence=(EVIDENCE,)))
    assert (created, view.publisher) == (True, "acme")
    target = hub.signing.repository.shelf("acme").find(name_of("1.0.0"))
    assert target is not None
    custom = custom_of(target)
    assert (custom.version, custom.evidence) == ("1.0.0", (EVIDENCE,))
    assert target.length == len(prepared("1.0.0").content)
    found = verify_release(client, machine(client, hub.signing, tmp_path / "other"), name_of("1.0.0"))
    assert found.vouched, found.problem
    assert [(step.role, step.version, len(step.signed_by)) for step in found.steps] == [
        ("root", 1, 1),
        ("targets", 2, 1),
        ("publisher-acme", 2, 1),
    ]


def test_the_same_release_again_signs_nothing(hub: HubDouble, acme: Publishing) -> None:
    acme.publish_release(prepared("1.0.0"))
    held = hub.signing.repository.load("publisher-acme")
    assert acme.publish_release(prepared("1.0.0"))[1] is False
    assert hub.signing.repository.load("publisher-acme") == held
    acme.publish_release(prepared("1.0.0", evidence=(EVIDENCE,)))
    held = hub.signing.repository.load("publisher-acme")
    acme.publish_release(prepared("1.0.0"))
    assert hub.signing.repository.load("publisher-acme") == held, "the evidence stays"
    other = prepared("1.0.0")
    with pytest.raises(Conflict, match="another release"):
        acme.publish_release(msgspec.structs.replace(other, content=other.content + b" "))


def test_what_is_kept_is_readable_by_its_owner_alone(acme: Publishing, tmp_path: Path) -> None:
    acme.publish_release(prepared("1.0.0"))
    folder = next((tmp_path / "acme" / "hubs").iterdir())
    for path in (folder.parent, folder, *(folder.rglob("*"))):
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {path.name for path in (folder / "signed").iterdir()} == {"targets.json", "publisher-acme.json"}


def test_who_was_overtaken_signs_anew_on_what_is_there_now(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    key = str(tmp_path / "acme" / "acme.pem")
    other = publishing_as(client, machine(client, hub.signing, tmp_path / "b"), "acme", [key])
    hub.signing.overtaken = [lambda: other.publish_release(prepared("1.1.0"))]
    assert acme.publish_release(prepared("1.0.0"))[1]
    assert hub.signing.repository.shelf("acme").targets().keys() == {
        f"releases/acme/{name_of(version)}.json" for version in ("1.0.0", "1.1.0")
    }


def test_who_is_overtaken_each_time_gives_up(hub: HubDouble, acme: Publishing) -> None:
    tries: list[int] = []

    def conflict() -> None:
        tries.append(1)
        raise Conflict("metadata.moved", "moved")

    hub.signing.overtaken = [conflict] * 100
    with pytest.raises(Conflict, match="moved"):
        acme.publish_release(prepared("1.0.0"))
    assert len(tries) == ATTEMPTS


def publish_again(signing: SigningHub, **versions: int) -> None:
    """Have the hub's own online key list other versions, as whoever has stolen the hub can."""
    stamp = signing.repository.file("timestamp.json")
    assert stamp is not None
    number = 900 + len(signing.served)
    online = [signing.keys.online.signer]
    now = CLOCK.now()
    signing.served["timestamp.json"] = sign(make_timestamp(number, version=number, now=now), online)
    listed = {name.replace("_", "-"): version for name, version in versions.items()}
    signing.served[f"{number}.snapshot.json"] = sign(make_snapshot(listed, version=number, now=now), online)


@pytest.mark.rule("TRUST-10")
def test_a_stolen_hub_cannot_have_older_metadata_signed_over(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.1.0"):
        acme.publish_release(prepared(version))
    acme.check()
    old = hub.signing.repository.file("timestamp.json")
    acme.publish_release(prepared("1.2.0"))
    acme.check()
    hub.requests.clear()
    hub.signing.served["timestamp.json"] = old
    with pytest.raises(Untrusted) as caught:
        acme.publish_release(prepared("1.3.0"))
    assert caught.value.code == "metadata.rollback"
    assert "resend" in caught.value.hint
    # With its online key it can list older versions as new.
    publish_again(hub.signing, targets=2, publisher_acme=2)
    with pytest.raises(Untrusted) as caught:
        acme.publish_release(prepared("1.3.0"))
    assert caught.value.code == "metadata.rollback"
    # A machine that has lost what it verified still has what it signed.
    for file in next((tmp_path / "acme" / "hubs").iterdir()).glob("metadata/*"):
        file.unlink()
    with pytest.raises(Untrusted, match="was signed here"):
        acme.publish_release(prepared("1.3.0"))
    assert not any(request.startswith("POST") for request in hub.requests), "nothing was signed or sent"


@pytest.mark.rule("TRUST-10")
def test_who_only_looked_notices_as_well_that_a_hub_goes_back_in_time(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    acme.publish_release(prepared("1.0.0"))
    old = hub.signing.repository.file("timestamp.json")
    acme.publish_release(prepared("1.1.0"))
    assert machine(client, hub.signing, tmp_path / "m").refresh().load("publisher-acme")
    hub.signing.served["timestamp.json"] = old
    with pytest.raises(Untrusted) as caught:
        machine(client, hub.signing, tmp_path / "m").refresh()
    assert caught.value.code == "metadata.rollback"
    machine(client, hub.signing, tmp_path / "new").refresh()
    hub.signing.served.clear()
    publish_again(hub.signing, targets=2, publisher_acme=2)
    with pytest.raises(Untrusted) as caught:
        machine(client, hub.signing, tmp_path / "m").refresh()
    assert caught.value.code == "metadata.rollback"


@pytest.mark.rule("TRUST-10")
@pytest.mark.parametrize("role", ("targets", "publisher-acme"))
def test_metadata_of_foreign_keys_is_not_signed_over(hub: HubDouble, acme: Publishing, role: str) -> None:
    acme.publish_release(prepared("1.0.0"))
    content = hub.signing.repository.load(role)
    assert content is not None
    forged = msgspec.json.decode(content)
    forged["signed"]["version"] += 1
    name = f"{forged['signed']['version']}.{role}.json"
    hub.signing.served[name] = msgspec.json.encode(forged)
    versions = {"targets": 2, "publisher_acme": 2}
    versions[role.replace("-", "_")] += 1
    publish_again(hub.signing, **versions)
    hub.requests.clear()
    with pytest.raises(Untrusted) as caught:
        acme.publish_release(prepared("1.1.0"))
    assert caught.value.code == "metadata.bad_signature"
    assert not any(request.startswith("POST") for request in hub.requests)


def test_metadata_without_end_is_cut_off(hub: HubDouble, acme: Publishing) -> None:
    hub.signing.served["timestamp.json"] = b"{" + b" " * (64 << 10)
    with pytest.raises(Untrusted) as caught:
        acme.check()
    assert caught.value.code == "metadata.too_long"


def test_a_hub_that_stands_still_is_noticed(hub: HubDouble, client: Client, tmp_path: Path) -> None:
    late = machine(client, hub.signing, tmp_path / "late")
    late.now = in_years(1)
    with pytest.raises(Untrusted) as caught:
        late.refresh()
    assert caught.value.code == "metadata.expired"


def test_what_a_publisher_signed_is_renewed_even_after_its_expiry(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    acme.publish_release(prepared("1.0.0"))
    content = hub.signing.repository.load("publisher-acme")
    assert content is not None
    here = machine(client, hub.signing, tmp_path / "acme")
    here.now = in_years(3)
    online, now = [hub.signing.keys.online.signer], here.now()
    hub.signing.served["timestamp.json"] = sign(make_timestamp(99, version=99, now=now), online)
    listed = make_snapshot({"targets": 2, "publisher-acme": 2}, version=99, now=now)
    hub.signing.served["99.snapshot.json"] = sign(listed, online)
    with pytest.raises(Untrusted) as caught:
        here.refresh(renewing=False)
    assert caught.value.code == "metadata.expired"
    late = publishing_as(client, here, "acme", [str(tmp_path / "acme" / "acme.pem")])
    (signed,) = late.renew()
    assert hub.signing.repository.load("publisher-acme") == signed.content


def test_a_threshold_of_two_of_three_needs_two_keys(hub: HubDouble, client: Client, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.pem" for number in range(3)]
    keys = [make_key_pair(path, "ecdsa" if path.name == "1.pem" else "ed25519") for path in paths]
    here = machine(client, hub.signing, tmp_path / "m")
    signers = targets_signers(hub.signing)
    holders = holders_of(keys, 2, "beta")
    publish_metadata(client, here, lambda seen: sign_new_publisher(seen, "beta", holders, signers))
    for few in (paths[:1], [paths[0], paths[0]]):
        with pytest.raises(Rejected) as caught:
            publishing_as(client, here, "beta", [str(path) for path in few]).publish_release(
                prepared("1.0.0")
            )
        assert caught.value.code == "signing.too_few"
        assert keys[1].keyid[:12] in caught.value.hint
    two = publishing_as(client, here, "beta", [str(path) for path in paths[1:]])
    assert two.publish_release(prepared("1.0.0"))[1]
    found = verify_release(client, here, name_of("1.0.0"))
    assert (found.vouched, len(found.steps[-1].signed_by), found.steps[-1].threshold) == (True, 2, 2)
    with pytest.raises(Rejected, match="threshold of 4 does not fit"):
        holders_of(keys, 4, "beta")


def test_after_a_rotation_the_new_key_vouches_for_everything_and_the_old_for_nothing(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    acme.publish_release(prepared("1.0.0"))
    new = tmp_path / "new.pem"
    holders = holders_of([make_key_pair(new, "ecdsa")], 1, "acme")
    here = machine(client, hub.signing, tmp_path / "m")
    offline = targets_signers(hub.signing).targets
    both = Signers(offline, open_signers([str(new)], no_secret))
    roles = publish_metadata(client, here, lambda seen: sign_rotation(seen, "acme", holders, both))
    assert [role.role for role in roles] == ["targets", "publisher-acme"]
    with pytest.raises(Rejected, match="does not count"):
        acme.publish_release(prepared("1.1.0"))
    now = publishing_as(client, here, "acme", [str(new)])
    assert now.publish_release(prepared("1.1.0"))[1]
    for version in ("1.0.0", "1.1.0"):
        assert verify_release(client, here, name_of(version)).vouched


@pytest.mark.parametrize("running", ("keep", "replace", "stop"))
def test_a_revoked_release_is_vouched_for_no_more_and_stays_so(
    hub: HubDouble, client: Client, acme: Publishing, running: Any, tmp_path: Path
) -> None:
    acme.publish_release(prepared("1.0.0"))
    revocation = Revocation(why="reads wrong digits", at=CLOCK.now(), running=running)
    acme.revoke_release(name_of("1.0.0"), revocation)
    found = verify_release(client, acme._repository, name_of("1.0.0"))
    assert (found.vouched, found.code) == (False, "release.revoked")
    assert found.revoked and found.revoked.running == running
    with pytest.raises(Conflict, match="was revoked"):
        acme.publish_release(prepared("1.0.0"))
    with pytest.raises(Missing):
        acme.revoke_release(name_of("9.9.9"), revocation)


def test_a_revoked_publisher_is_trusted_no_more_and_its_name_is_not_given_out_again(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    acme.publish_release(prepared("1.0.0"))
    here = machine(client, hub.signing, tmp_path / "m")
    offline = targets_signers(hub.signing).targets
    gone = Revocation(why="stolen", at=CLOCK.now())
    publish_metadata(client, here, lambda seen: sign_publisher_revocation(seen, "acme", gone, offline))
    found = verify_release(client, here, name_of("1.0.0"))
    assert (found.vouched, found.code) == (False, "publisher.revoked")
    with pytest.raises(Missing, match="no publisher acme"):
        acme.publish_release(prepared("1.1.0"))
    with pytest.raises(Conflict, match="was revoked"):
        check_new_publisher(here.refresh(), "acme")


def test_another_publisher_vouches_for_its_own_releases_only(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    beta = registered(client, hub.signing, tmp_path / "beta", "beta")
    acme.publish_release(prepared("1.0.0"))
    beta.publish_release(prepared("2.0.0"))
    here = machine(client, hub.signing, tmp_path / "m")
    assert verify_release(client, here, name_of("2.0.0")).publisher == "beta"
    assert verify_release(client, here, name_of("2.0.0"), "beta").vouched
    assert verify_release(client, here, name_of("2.0.0"), "acme").code == "release.unsigned"
    key = str(tmp_path / "beta" / "beta.pem")
    with pytest.raises(Rejected, match="does not count"):
        publishing_as(client, here, "acme", [key]).publish_release(prepared("3.0.0"))


def test_another_document_than_the_one_that_was_signed_is_noticed(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    view, _ = acme.publish_release(prepared("1.0.0"))
    other = msgspec.json.decode(prepared("1.0.1").content)
    hub.views[f"/releases/{view.name}"] = msgspec.structs.replace(view, document=other)
    hub.blobs[view.digest] = prepared("1.0.1").content
    found = verify_release(client, acme._repository, view.name)
    assert (found.vouched, found.code) == (False, "release.mismatch")


def test_a_hub_restored_from_an_older_backup_gets_back_what_was_signed(
    hub: HubDouble, client: Client, acme: Publishing, tmp_path: Path
) -> None:
    acme.publish_release(prepared("1.0.0"))
    acme.publish_release(prepared("1.1.0"))
    held = hub.signing.repository.load("publisher-acme")
    files = acme._repository.files
    hub.signing.begin()
    with pytest.raises(Untrusted) as caught:
        acme.publish_release(prepared("1.2.0"))
    assert "publisher resend" in caught.value.hint
    lost = find_lost(client, files, "acme")
    assert lost.versions == {"targets": 2, "publisher-acme": 3}
    resend(client, lost)
    assert hub.signing.repository.load("publisher-acme") == held
    assert not find_lost(client, files, "acme").versions
    with pytest.raises(Missing, match="ever verified or signed"):
        find_lost(client, files, "beta")


def test_keys_of_a_publisher_are_read_from_pem(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(SigningKey.generate().to_pem())
    with pytest.raises(Rejected, match="is a private key"):
        read_public(tmp_path / "k")
