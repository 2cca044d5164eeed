"""Asks a component that runs to take what is new to it: models, configuration, secrets, certificates, bindings."""

from __future__ import annotations

from typing import Protocol

from skerry.kit.errors import Rejected, SkerryError
from skerry.kit.quantities import parse_duration
from skerry.ports.prober import Prober
from skerry.ports.runtime import InstanceView, Runtime

LOCAL = "127.0.0.1"


class Post(Protocol):
    """A POST to a port of the component, by the port's name."""

    @property
    def port(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102


class Change(Protocol):
    """How a component is asked: by a signal, or by a POST that is answered within `timeout` once it has taken it."""

    @property
    def signal(self) -> str | None: ...  # noqa: D102
    @property
    def http(self) -> Post | None: ...  # noqa: D102
    @property
    def timeout(self) -> str: ...  # noqa: D102


async def ask_to_take(view: InstanceView, change: Change, *, runtime: Runtime, prober: Prober) -> str:
    """Ask an instance once; return why it did not take what is new, empty when it did.

    Raises:
        Rejected: it does not say how it is asked (`component.no_change`).
    """
    if change.signal is not None:
        try:
            await runtime.signal(view.id, f"SIG{change.signal}")
        except (SkerryError, OSError) as error:
            return f"SIG{change.signal} could not be sent: {error}"
        return ""
    if change.http is None:
        raise Rejected("component.no_change", f"{view.id} does not say how it takes what is new")
    port = int(view.labels.get(f"port.{change.http.port}", "0"))
    return await prober.post(LOCAL, port, change.http.path, timeout_s=parse_duration(change.timeout)) or ""
