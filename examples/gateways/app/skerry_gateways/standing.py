"""How a gateway stands: what its health and metrics say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Standing:
    """Whether both sides answer, and what has been counted."""

    kind: str
    source: bool = False
    bus: bool = False
    counts: Counter[str] = field(default_factory=Counter[str])

    @property
    def trouble(self) -> str:
        """Say which side is away; empty while both are there."""
        away = [name for name, there in (("source", self.source), ("bus", self.bus)) if not there]
        return " and ".join(away) + " away" if away else ""

    def metrics(self) -> str:
        """Return it in Prometheus' text format."""
        lines = ["# TYPE gateway_connected gauge"]
        for side, there in (("source", self.source), ("bus", self.bus)):
            lines.append(f'gateway_connected{{kind="{self.kind}",side="{side}"}} {int(there)}')
        for name in ("published", "dropped", "writes", "writes_refused", "reconnects", "errors"):
            lines.append(f"# TYPE gateway_{name}_total counter")
            lines.append(f'gateway_{name}_total{{kind="{self.kind}"}} {self.counts[name]}')
        return "\n".join(lines) + "\n"
