"""What a host and a hub believe, and what they refuse: replayed, altered, foreign, older, expired, wrong site."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.errors import Denied, Rejected, Untrusted
from skerry.spec.carrier import TIME_TYPE, HubTime, JoinToken
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.spec.report import REPORT_TYPE, Report
from skerry.trust.desired import verify_desired
from skerry.trust.envelope import sign_document, verify_payload
from skerry.trust.keys import SigningKey, key_id, new_sealing_key, public_key, sealing_public
from skerry.trust.report import claimed_key, verify_report
from skerry.trust.timekeeping import TimeTrust, raise_floor, trusted_now, verify_time
from skerry.trust.tokens import (
    encode_join_token,
    issue_blob_token,
    parse_join_token,
    verify_blob_token,
)

pytestmark = pytest.mark.trust

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HUB, STRANGER, HOST = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


def desired(**changes: Any) -> DesiredState:
    document = DesiredState(site="harbour", generation=5, issued_at=NOW, expires_at=NOW + timedelta(days=60))
    return msgspec.structs.replace(document, **changes)


def take(
    envelope: dict[str, Any], *, held: int = 4, now: datetime = NOW, site: str = "harbour"
) -> DesiredState:
    return verify_desired(envelope, [HUB.verifier], site=site, held_generation=held, now=now)


def signed(document: DesiredState, key: SigningKey = HUB) -> dict[str, Any]:
    return sign_document(document, DESIRED_STATE_TYPE, key)


def refusal(envelope: dict[str, Any], **how: Any) -> str:
    with pytest.raises(Untrusted) as caught:
        take(envelope, **how)
    return caught.value.code


@pytest.mark.rule("SYNC-2")
def test_a_desired_state_of_the_hub_is_taken() -> None:
    assert take(signed(desired())).generation == 5


@pytest.mark.rule("SYNC-1")
@given(held=st.integers(0, 50), offered=st.integers(1, 50))
def test_only_a_higher_generation_is_taken(held: int, offered: int) -> None:
    envelope = signed(desired(generation=offered))
    if offered > held:
        assert take(envelope, held=held).generation == offered
    else:
        assert refusal(envelope, held=held) == "desired.not_newer"


@pytest.mark.rule("SYNC-2")
def test_a_desired_state_of_another_site_is_refused() -> None:
    assert refusal(signed(desired(site="airport"))) == "desired.wrong_site"


@pytest.mark.rule("SYNC-2")
def test_an_expired_desired_state_is_refused() -> None:
    assert refusal(signed(desired()), now=NOW + timedelta(days=61)) == "desired.expired"


@pytest.mark.rule("SYNC-2")
def test_a_desired_state_from_the_future_is_refused() -> None:
    assert refusal(signed(desired()), now=NOW - timedelta(days=1)) == "desired.from_the_future"


@pytest.mark.rule("SYNC-2")
def test_a_desired_state_signed_by_a_stranger_is_refused() -> None:
    assert refusal(signed(desired(), STRANGER)) == "envelope.bad_signature"


@pytest.mark.rule("SYNC-2")
def test_a_stranger_cannot_borrow_the_hubs_key_id() -> None:
    envelope = signed(desired(), STRANGER)
    envelope["signatures"][0]["keyid"] = HUB.key_id
    assert refusal(envelope) == "envelope.bad_signature"


@pytest.mark.rule("SYNC-2")
def test_a_payload_of_another_type_is_refused_even_with_the_hubs_signature() -> None:
    envelope = sign_document(HubTime(host="h", sequence=1, now=NOW), TIME_TYPE, HUB)
    assert refusal(envelope) == "envelope.wrong_type"
    envelope["payloadType"] = DESIRED_STATE_TYPE
    assert refusal(envelope) == "envelope.bad_signature"


@pytest.mark.rule("SYNC-2")
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_every_altered_byte_is_refused(position: int, flip: int) -> None:
    envelope = signed(desired())
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[position % len(payload)] ^= flip
    envelope["payload"] = base64.b64encode(payload).decode()
    assert refusal(envelope) == "envelope.bad_signature"


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
json_values = scalars | st.lists(
    scalars | st.dictionaries(st.sampled_from(["keyid", "sig", "x"]), scalars, max_size=3), max_size=3
)


@given(
    envelope=st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures", "other"]), json_values, max_size=4
    )
)
def test_no_malformed_envelope_raises_anything_but_untrusted(envelope: dict[str, Any]) -> None:
    with pytest.raises(Untrusted):
        verify_payload(envelope, DESIRED_STATE_TYPE, [HUB.verifier])
    with contextlib.suppress(Untrusted):
        assert isinstance(claimed_key(envelope), str)


def report(**changes: Any) -> Report:
    document = Report(host="edge-1", site="harbour", sequence=3, sent_at=NOW, clock=NOW)
    return msgspec.structs.replace(document, **changes)


def test_a_report_is_taken_from_its_host_only() -> None:
    envelope = sign_document(report(), REPORT_TYPE, HOST)
    assert claimed_key(envelope) == HOST.key_id
    assert verify_report(envelope, HOST.verifier, host="edge-1", site="harbour").sequence == 3
    for key, host, site, code in [
        (STRANGER, "edge-1", "harbour", "envelope.bad_signature"),
        (HOST, "edge-2", "harbour", "report.wrong_host"),
        (HOST, "edge-1", "airport", "report.wrong_site"),
    ]:
        with pytest.raises(Untrusted) as caught:
            verify_report(envelope, key.verifier, host=host, site=site)
        assert caught.value.code == code


def test_time_is_learnt_from_the_answer_to_our_own_question_only() -> None:
    envelope = sign_document(HubTime(host="edge-1", sequence=7, now=NOW), TIME_TYPE, HUB)
    stuck = datetime(1970, 1, 1, tzinfo=UTC)
    trust = verify_time(envelope, [HUB.verifier], host="edge-1", sequence=7, system=stuck)
    assert trusted_now(stuck, trust) == NOW
    assert trusted_now(stuck + timedelta(minutes=3), trust) == NOW + timedelta(minutes=3)
    for host, sequence in [("edge-1", 8), ("edge-2", 7)]:
        with pytest.raises(Untrusted) as caught:
            verify_time(envelope, [HUB.verifier], host=host, sequence=sequence, system=stuck)
        assert caught.value.code == "time.replayed"


def test_trusted_time_is_never_before_what_was_signed() -> None:
    trust = raise_floor(TimeTrust(), NOW)
    assert trusted_now(datetime(1970, 1, 1, tzinfo=UTC), trust) == NOW
    assert raise_floor(trust, NOW - timedelta(days=1)) == trust
    assert trusted_now(NOW + timedelta(days=1), trust) == NOW + timedelta(days=1)


def test_a_blob_token_works_until_it_expires_and_only_as_signed() -> None:
    keys = {HUB.key_id: HUB.verifier}
    token = issue_blob_token("edge-1", "harbour", NOW + timedelta(hours=1), HUB)
    assert verify_blob_token(token, keys, NOW).host == "edge-1"
    for bad, when in [
        (token, NOW + timedelta(hours=2)),
        (token[:-4] + "AAAA", NOW),
        ("A" + token[1:], NOW),
        (issue_blob_token("edge-1", "harbour", NOW + timedelta(hours=1), STRANGER), NOW),
        ("", NOW),
        ("x.y", NOW),
    ]:
        with pytest.raises(Denied):
            verify_blob_token(bad, keys, when)


@given(st.text(max_size=300))
def test_no_text_breaks_the_token_parsers(text: str) -> None:
    with pytest.raises(Denied):
        verify_blob_token(text, {HUB.key_id: HUB.verifier}, NOW)
    with pytest.raises(Rejected):
        parse_join_token(text)
    with pytest.raises(Rejected):
        parse_join_token("skerry-join." + text)


def test_a_join_token_survives_the_way_through_a_terminal() -> None:
    token = JoinToken(hub="https://hub:8443", site="harbour", root="sha256:00", secret="s", expires_at=NOW)
    assert parse_join_token(f"  {encode_join_token(token)}\n") == token


@pytest.mark.rule("TRUST-2")
def test_a_refused_join_token_is_not_repeated_in_the_error() -> None:
    with pytest.raises(Rejected) as caught:
        parse_join_token("skerry-join.c2VjcmV0LXNlY3JldA")
    assert "c2Vj" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_keys_survive_storage_and_damaged_ones_are_refused_without_being_shown() -> None:
    again = SigningKey.from_pem(HOST.to_pem())
    assert (again.public, again.key_id) == (HOST.public, key_id(HOST.public))
    pem, public = new_sealing_key()
    assert sealing_public(pem) == public
    for broken in (b"", b"nonsense", HOST.to_pem()[:-40], pem):
        with pytest.raises(Untrusted):
            SigningKey.from_pem(broken)
    with pytest.raises(Untrusted):
        sealing_public(HOST.to_pem())
    for malformed in ("", "AAAA", "not base64!"):
        with pytest.raises(Untrusted):
            public_key(malformed)


def test_a_stored_key_of_a_kind_nobody_knows_is_refused_as_damaged() -> None:
    # PKCS#8 whose algorithm is the object identifier 1.2.3.4.
    strange = b"-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n"
    for read in (SigningKey.from_pem, sealing_public):
        with pytest.raises(Untrusted) as caught:
            read(strange % b"MA8CAQAwBQYDKgMEBANrZXk=")
        assert caught.value.code == "key.unreadable"
        assert caught.value.__context__ is None
