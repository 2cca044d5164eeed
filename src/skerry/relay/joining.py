"""How a machine becomes a relay: it makes its keys, and the hub takes them for a token."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from skerry.carrier.link import HttpLink
from skerry.carrier.ways_up import (
    NOTHING_STATED,
    StatedWay,
    WayUp,
    fetch_first_root,
    load_dialling,
    save_dialling,
)
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Rejected
from skerry.kit.locking import hold
from skerry.relay.identity import Place, load_place, make_keys, save_place
from skerry.spec.carrying import RelayEnrollRequest
from skerry.spec.relay import RELAY_REPORT_TYPE, RelayReport
from skerry.trust.envelope import sign_document
from skerry.trust.tokens import parse_join_token

_log = structlog.get_logger()

RUNNING = Conflict(
    "relay.running", "another relay runs on this directory", hint="one data directory, one relay"
)


def join_as_relay(data: Path, token_text: str, stated: StatedWay = NOTHING_STATED) -> Place:
    """Make this machine the relay that the token names; again, after a cut connection, is safe.

    The upstream is not trusted before its trust root has the digest that the token pins. The private keys are made
    here and stay here. The upstreams that are `stated` are asked in the place of the one that the token names, and are
    kept together with how they are dialled.

    Raises:
        Rejected: the token is malformed (`join.malformed`), or one for hosts (`join.not_for_relays`).
        Conflict: another relay has joined from this directory, or runs.
        Denied: the token is used up, expired or unknown.
        Untrusted: the upstream is not the hub the token names.
    """
    token = parse_join_token(token_text)
    if not token.relay:
        hint = "skerry relay token prints one for a relay"
        raise Rejected("join.not_for_relays", "this token is for a host", hint=hint)
    with hold(data / "relay.lock", conflict=RUNNING):
        held = load_place(data)
        if held is not None and held.relay != token.relay:
            message = f"this directory has joined as relay {held.relay}"
            raise Conflict("relay.joined", message, hint="use another --data directory")
        way = WayUp(stated.upstreams or (token.hub,), stated.dialling.over(load_dialling(data)))
        way.check()
        upstream, root, raw = fetch_first_root(way, token.root)
        key, tls_key = make_keys(data)
        now = datetime.now(UTC)
        proof = RelayReport(relay=token.relay, sequence=1, sent_at=now, clock=now, tls_key=tls_key)
        request = RelayEnrollRequest(
            secret=token.secret,
            relay=token.relay,
            sign_key=key.public,
            proof=sign_document(proof, RELAY_REPORT_TYPE, key),
        )
        link = HttpLink(upstream, root.ca_pem, dialling=way.dialling)
        try:
            answer = link.enroll_relay(request)
        finally:
            link.close()
        first, *others = way.upstreams
        place = Place(
            relay=answer.relay,
            upstream=first,
            root=token.root,
            upstreams=way.upstreams if others else (),
        )
        save_dialling(data, way.dialling)
        save_place(data, place, raw)
        # Verified when the relay begins, by what it trusts then.
        write_file(data / "first-state.json", msgspec.json.encode(answer.state))
    return place
