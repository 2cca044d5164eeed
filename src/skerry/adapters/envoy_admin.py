"""What Envoy says of itself, asked over the Unix socket of its admin interface.

Every question is a connection of its own, bounded in time and size, and blocking: it belongs into a thread.
"""

from __future__ import annotations

import http.client
import math
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.proxy import Counts
from skerry.telemetry.exposition import MAX_BYTES, parse_exposition

TIME_LIMIT_S = 5.0
MAX_COUNT = 1 << 60

_REQUESTS = "envoy_cluster_upstream_rq_completed"
_ERRORS = "envoy_cluster_upstream_rq_xx"
_OPENED = "envoy_cluster_upstream_cx_total"
_TIMES = "envoy_cluster_upstream_rq_time_bucket"
_RECEIVED = "envoy_cluster_upstream_cx_tx_bytes_total"
_SENT = "envoy_cluster_upstream_cx_rx_bytes_total"
_NAMES = frozenset({_REQUESTS, _ERRORS, _OPENED, _TIMES, _RECEIVED, _SENT})
_COUNTS = (
    "/stats/prometheus?usedonly&filter="
    "%5Ecluster%5C..*%5C.(upstream_rq_completed|upstream_rq_%5Cdxx|upstream_rq_time|upstream_cx_total"
    "|upstream_cx_[rt]x_bytes_total)$"
)
_VERSIONS = "/stats?format=json&type=TextReadouts&filter=version_text$"


class _Readout(msgspec.Struct):
    name: str = ""
    value: str = ""


class _Readouts(msgspec.Struct):
    stats: tuple[_Readout, ...] = ()


class EnvoyAdmin:
    """Asks the admin interface at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def versions(self) -> dict[str, str]:
        """Return the version of each set of resources in force, such as `cluster_manager.cds`.

        Raises:
            Unavailable: it does not answer (`proxy.away`).
        """
        try:
            found = msgspec.json.decode(self._get(_VERSIONS), type=_Readouts)
        except UNREADABLE as error:
            raise _away("its answer is no JSON") from error
        return {one.name.removesuffix(".version_text"): one.value for one in found.stats}

    def ports(self) -> frozenset[int]:
        """Return the ports that are listened on.

        Raises:
            Unavailable: it does not answer (`proxy.away`).
        """
        lines = self._get("/listeners").decode(errors="replace").splitlines()
        # `https::0.0.0.0:443`
        ports = (line.rpartition(":")[2] for line in lines)
        return frozenset(int(port) for port in ports if port.isdigit())

    def counts(self, run: str) -> dict[str, Counts]:
        """Return what each cluster answered.

        Raises:
            Unavailable: it does not answer (`proxy.away`).
        """
        content = self._get(_COUNTS)
        try:
            series = parse_exposition(content, _NAMES).series
        except Rejected as error:
            raise _away(error.message) from error
        plain: dict[str, dict[str, int]] = {}
        times: dict[str, dict[float, int]] = {}
        for name, values in series.items():
            for labels, value in values.items():
                known = dict(labels)
                cluster = known.get("envoy_cluster_name", "")
                if name == _TIMES:
                    bound = float(known.get("le", "nan").replace("+Inf", "inf"))
                    if not math.isnan(bound):
                        times.setdefault(cluster, {})[bound] = _whole(value)
                elif name != _ERRORS or known.get("envoy_response_code_class") == "5":
                    plain.setdefault(cluster, {})[name] = _whole(value)
        return {name: _counts(run, found, times.get(name, {})) for name, found in plain.items()}

    def _get(self, target: str) -> bytes:
        connection = _SocketConnection(str(self._path))
        try:
            connection.request("GET", target, headers={"Host": "envoy"})
            answer = connection.getresponse()
            content = answer.read(MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _away(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if answer.status != http.client.OK or len(content) > MAX_BYTES:
            raise _away(f"HTTP {answer.status}, {len(content)} bytes")
        return content


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("envoy", timeout=TIME_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIME_LIMIT_S)
        self.sock.connect(self._path)


def _counts(run: str, found: Mapping[str, int], times: Mapping[float, int]) -> Counts:
    # What is no HTTP has no requests: a connection is one.
    requests = found.get(_REQUESTS, 0) or found.get(_OPENED, 0) * (not times)
    return Counts(
        run=run,
        requests=requests,
        errors=min(found.get(_ERRORS, 0), requests),
        received_bytes=found.get(_RECEIVED, 0),
        sent_bytes=found.get(_SENT, 0),
        latency_ms=times,
    )


def _whole(value: float) -> int:
    return int(min(max(value, 0.0), float(MAX_COUNT))) if math.isfinite(value) else 0


def _away(why: str) -> Unavailable:
    return Unavailable("proxy.away", f"the proxy does not answer: {why}")
