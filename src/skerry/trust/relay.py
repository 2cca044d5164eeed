"""When a hub or a relay believes a relay, and when a relay takes its RelayState."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key

from skerry.kit.errors import Untrusted
from skerry.spec.relay import RELAY_REPORT_TYPE, RELAY_STATE_TYPE, RelayReport, RelayState
from skerry.trust.envelope import verify_document
from skerry.trust.issued import check_issued


def relay_subject(name: str) -> str:
    """Return who a relay is in blob tokens and in a HubTime; no name of a host has a colon."""
    return f"relay:{name}"


def verify_relay_report(envelope: dict[str, Any], key: Key, *, relay: str) -> RelayReport:
    """Return the RelayReport of an envelope signed by `key`.

    Raises:
        Untrusted: not signed by that key (`envelope.*`), no such report (`document.malformed`), or of another relay
            (`relay_report.wrong_relay`).
    """
    report = verify_document(envelope, RELAY_REPORT_TYPE, RelayReport, [key])
    if report.relay != relay:
        message = f"relay {relay} signed a report of {report.relay[:64]}"
        raise Untrusted("relay_report.wrong_relay", message)
    return report


def verify_relay_state(
    envelope: dict[str, Any], keys: Iterable[Key], *, relay: str, held_generation: int, now: datetime
) -> RelayState:
    """Return the RelayState of an envelope that this relay may take.

    `now` is the relay's trusted time (see `skerry.trust.timekeeping`).

    Raises:
        Untrusted: not signed by the hub (`envelope.*`), for another relay (`relay_state.wrong_relay`), not newer
            than `held_generation` (`relay_state.not_newer`), expired (`relay_state.expired`) or dated ahead
            (`relay_state.from_the_future`).
    """
    state = verify_document(envelope, RELAY_STATE_TYPE, RelayState, keys)
    if state.relay != relay:
        message = f"this is the state of relay {state.relay}, not of {relay}"
        raise Untrusted("relay_state.wrong_relay", message)
    check_issued(state, "relay_state", held_generation=held_generation, now=now)
    return state
