"""What is added to a site's DesiredState beside what the rollouts assign, in this order."""

from __future__ import annotations

from skerry.hub.bus_linking import link_buses
from skerry.hub.configuring import Configuring
from skerry.hub.downlinking import Downlinking
from skerry.hub.identities import Identities
from skerry.hub.pki_issuing import SiteAuthorities
from skerry.hub.questions import Questions
from skerry.hub.secret_keeping import SecretKeeper
from skerry.hub.secret_sealing import Sealer
from skerry.hub.site_use import Addition
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore


def site_additions(
    store: HubStore,
    clock: Clock,
    *,
    keeper: SecretKeeper,
    identities: Identities,
    pki: SiteAuthorities,
    questions: Questions,
) -> list[Addition]:
    """Return what adds to the DesiredState of each site."""

    def is_barred(host: str) -> bool:
        return identities.quarantine(host) is not None

    pki.is_barred = is_barred
    sealer = Sealer(store, keeper, clock, is_barred=is_barred)
    downlinks = Downlinking(store, clock)
    return [Configuring(store).add, sealer.add, pki.add, link_buses, downlinks.add, questions.add]
