"""When a host takes a DesiredState: signed by its hub, for its site, newer than what it holds, not expired."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key

from skerry.kit.errors import Untrusted
from skerry.spec.desired import DESIRED_STATE_TYPE, DesiredState
from skerry.trust.envelope import verify_document
from skerry.trust.issued import check_issued


def verify_desired(
    envelope: dict[str, Any], keys: Iterable[Key], *, site: str, held_generation: int, now: datetime
) -> DesiredState:
    """Return the DesiredState of an envelope that this host may take.

    `now` is the host's trusted time (see `skerry.trust.timekeeping`).

    Raises:
        Untrusted: not signed by the hub (`envelope.*`), for another site (`desired.wrong_site`), not newer
            than `held_generation` (`desired.not_newer`), expired (`desired.expired`) or dated ahead
            (`desired.from_the_future`).
    """
    desired = verify_document(envelope, DESIRED_STATE_TYPE, DesiredState, keys)
    if desired.site != site:
        message = f"this is the desired state of site {desired.site}, not of {site}"
        raise Untrusted("desired.wrong_site", message)
    check_issued(desired, "desired", held_generation=held_generation, now=now)
    return desired
