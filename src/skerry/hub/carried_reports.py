"""Takes reports that were carried by hand, as if their host had sent them when it wrote them."""

from __future__ import annotations

from skerry.hub.services import Hub
from skerry.kit.errors import Conflict
from skerry.spec.bundle import CarriedAnswer, CarriedReports
from skerry.trust.report import claimed_key, verify_report


async def take_carried(hub: Hub, carried: CarriedReports) -> CarriedAnswer:
    """Take reports of one host, each once.

    Raises:
        Unauthenticated: no host has that key (`host.unknown`).
        Untrusted: one of them is not the host's; then nothing is taken.
        Conflict: some that come before them are missing (`reports.broken`).
        Denied: the host is in quarantine.
    """
    hearing = hub.backend.hearing
    host = await hearing.known(claimed_key(carried.reports[0]))
    before = host.sequence
    reports = [verify_report(one, host.key, host=host.name, site=host.site) for one in carried.reports]
    # The host was there when it wrote them, and not when somebody brought them.
    age_s = max(0.0, (hub.clock.now() - reports[-1].sent_at).total_seconds())
    heard = await hearing.take(host, carried.reports, age_s=age_s)
    if heard.broken:
        hint = "export them anew at the host: all that the hub does not have is in there"
        raise Conflict("reports.broken", "reports that come before these are missing", hint=hint)
    taken = sum(report.sequence > before for report in reports)
    return CarriedAnswer(host=host.name, site=host.site, taken=taken, acknowledged=heard.acknowledged)
