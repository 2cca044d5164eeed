"""A real network of network namespaces: hosts on a bridge, whose links are cut and mended. Needs root and `ip`.

Every host has a namespace of its own with one interface on the bridge, and reaches this machine's own processes (a
hub, say) at `gateway`, until `cut_uplink`. Nothing is left behind: `close` removes what `Lan` made, and what an
earlier run of the same name was killed over is removed at the start.

One direction of a link is cut by a routing rule of the receiver (`ip rule ... blackhole`): what comes from there is
lost as on a broken cable, not refused as by a closed port. It needs neither a firewall nor a module.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

PREFIX = "skt"
COMMAND_S = 20.0
MAX_HOSTS = 9


def lan_problem() -> str:
    """Return why no `Lan` can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no program ip"
    probe = subprocess.run(
        ["ip", "netns", "exec", "no-such-namespace", "true"],
        capture_output=True,
        check=False,
        timeout=COMMAND_S,
    )
    return "" if b"ermitted" not in probe.stderr else "network namespaces are not permitted here"


class Lan:
    """A network `10.77.NUMBER.0/24` with the hosts that are named; `number` tells networks of one machine apart."""

    def __init__(self, hosts: Sequence[str], *, number: int = 1) -> None:
        assert 1 <= len(hosts) <= MAX_HOSTS, "one digit numbers the hosts"
        assert 1 <= number <= 99, "interface names have 15 characters"
        self.hosts = tuple(hosts)
        self._number = number
        self._bridge = f"{PREFIX}{number}br"
        self._cut: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def gateway(self) -> str:
        """The address at which hosts reach this machine."""
        return f"10.77.{self._number}.254"

    def address(self, host: str) -> str:
        """Return a host's address."""
        return f"10.77.{self._number}.{self.hosts.index(host) + 1}"

    def namespace(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{PREFIX}{self._number}-{self.hosts.index(host) + 1}"

    def start(self) -> Self:
        """Make the network."""
        self._remove()
        try:
            self._ip("link", "add", self._bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self._ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)
            self._ip("link", "set", self._bridge, "up")
            for host in self.hosts:
                self._add(host)
        except BaseException:
            self._remove()
            raise
        return self

    def command(self, host: str, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs another one on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *arguments]

    def run(
        self, host: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, code: int = 0
    ) -> str:
        """Run a command on a host, to its end, and return its standard output."""
        done = subprocess.run(
            self.command(host, arguments),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env=None if env is None else dict(env),
        )
        assert done.returncode == code, f"{arguments} on {host}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def cut(self, source: str, target: str) -> None:
        """Lose everything that one host sends to another; the other direction stays."""
        if (source, target) not in self._cut:
            self._cut.add((source, target))
            self._apply(target, source, "add")

    def cut_off(self, host: str) -> None:
        """Lose everything between a host and all others; it still reaches the gateway."""
        for other in self.hosts:
            if other != host:
                self.cut(host, other)
                self.cut(other, host)

    def unplug(self, host: str) -> None:
        """Take a host's cable out, so that it reaches nobody."""
        self._ip("link", "set", self._outer(host), "down")

    def plug(self, host: str) -> None:
        """Put a host's cable in again."""
        self._ip("link", "set", self._outer(host), "up")

    def cut_uplink(self) -> None:
        """Take the gateway away from all hosts; they go on hearing each other."""
        self._ip("addr", "del", f"{self.gateway}/24", "dev", self._bridge)

    def mend_uplink(self) -> None:
        """Give the gateway back."""
        self._ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)

    def heal(self) -> None:
        """Mend every link between hosts, and plug everybody in."""
        while self._cut:
            source, target = self._cut.pop()
            self._apply(target, source, "del")
        for host in self.hosts:
            self.plug(host)

    def close(self) -> None:
        """End what runs on the hosts and remove the network."""
        self._remove()

    def _add(self, host: str) -> None:
        namespace, outer = self.namespace(host), self._outer(host)
        self._ip("netns", "add", namespace)
        self._ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._ip("link", "set", outer, "master", self._bridge, "up")
        for arguments in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address(host)}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", self.gateway),
            # What is for the host itself is looked up first of all, where no rule of ours could come before it.
            ("rule", "add", "priority", "100", "lookup", "local"),
            ("rule", "del", "priority", "0"),
        ):
            self._ip("-n", namespace, *arguments)

    def _apply(self, target: str, source: str, what: str) -> None:
        """Add or delete the rule that drops what arrives at one host from another; replies it sends still leave."""
        rule = ("iif", "eth0", "from", f"{self.address(source)}/32", "priority", "10", "blackhole")
        self._ip("-n", self.namespace(target), "rule", what, *rule)

    def _outer(self, host: str) -> str:
        return f"{PREFIX}{self._number}v{self.hosts.index(host) + 1}"

    def _remove(self) -> None:
        for place in sorted(Path("/run/netns").glob(f"{PREFIX}{self._number}-[0-9]")):
            self._end_processes(place.name)
            self._try("ip", "netns", "del", place.name)
        for place in sorted(Path("/sys/class/net").glob(f"{PREFIX}{self._number}v[0-9]")):
            self._try("ip", "link", "del", place.name)
        if Path("/sys/class/net", self._bridge).exists():
            self._try("ip", "link", "del", self._bridge)

    def _end_processes(self, namespace: str) -> None:
        listed = subprocess.run(
            ["ip", "netns", "pids", namespace],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def _ip(self, *arguments: str) -> None:
        self._must("ip", *arguments)

    def _must(self, *arguments: str) -> None:
        done = self._try(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr.strip()}"

    def _try(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
