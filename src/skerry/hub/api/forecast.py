"""What will run out at which host before it is heard of again."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from litestar import get
from litestar.params import FromQuery, QueryParameter

from skerry.hub.api.operators import TheHub
from skerry.hub.forecasting import foresee
from skerry.kit.errors import Missing
from skerry.spec.api_forecast import ForecastView

MAX_WITHIN_S = 10 * 366 * 86400


@get("/forecast", sync_to_thread=True)
def forecast(
    hub: TheHub,
    site: FromQuery[str] = "",
    within_s: FromQuery[Annotated[int, QueryParameter(ge=0, le=MAX_WITHIN_S)]] = 0,
) -> list[ForecastView]:
    """List the secrets and certificates that run out before their hosts are expected back, or within a time."""
    if site and hub.store.site(site) is None:
        raise Missing("site.missing", f"there is no site {site[:80]}", hint="skerry get sites lists them")
    hosts = hub.backend.presence.fresh(hub.store.hosts(site or None))
    now = hub.clock.now()
    return foresee(hub.store, hub.secrets, hosts, within=timedelta(seconds=within_s), now=now)


HANDLERS: list[Any] = [forecast]
