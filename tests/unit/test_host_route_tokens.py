"""The tokens of routes on a host: values of secrets, waited for and kept as those of components are."""

from __future__ import annotations

from skerry.spec.application import Port
from skerry.spec.ingress import Route, RouteAuth
from tests.unit.agent_world import APP
from tests.unit.test_host_secrets import NEW, OLD, Host, host

__all__ = ["host"]


async def test_the_token_of_a_route_is_waited_for_and_kept_as_other_secrets_are(host: Host) -> None:
    locked = Route(name="main", component="main", port="http", auth=RouteAuth(token="password"))
    one = host.release("1", ports=(Port(name="http"),), routes=(locked,))
    await host.desire({"1": one})
    await host.agent.steps()
    assert host.agent.observed.applications[APP].why == "waiting for a value of secret password"
    await host.desire({"1": one}, host.seal(OLD, 1))
    await host.agent.until(lambda: host.agent.runs("1"))
    await host.desire({"1": one}, host.seal(OLD, 1), host.seal(NEW, 2))
    await host.agent.steps()
    assert host.agent.secrets.value_of("password") == NEW.encode()
    assert host.file() is None
