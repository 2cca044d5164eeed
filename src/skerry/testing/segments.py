"""A real segmented network: levels one below the other, a firewall between each two, and nothing else between them.

Level 0 is the uppermost, and this machine is on it at `top` (a hub, say). Every machine of a level is a network
namespace. Firewall N stands between level N - 1 and level N: it lets machines of level N open the connections upwards
that were allowed, and counts and drops all else, told apart: what was sent downwards without being an answer, and what
was to go past the level above. Nothing is left behind: `close` removes everything, and so does the next start.

A firewall's link to the level above can be a `Wire`: narrow, long and lossy. It needs root, `ip` and `iptables`, and
for wires /dev/net/tun.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from skerry.testing.lan import COMMAND_S, end_processes, must, try_command

PREFIX = "sks"
MAX_LEVELS = 9


class Wire(msgspec.Struct, frozen=True):
    """What a link is like, each way: bytes per second, seconds, and the share of frames that are lost."""

    rate: float = 1e9
    delay_s: float = 0.0
    loss: float = 0.0
    seed: int = 1


class Crossings(msgspec.Struct, frozen=True):
    """Packets at a firewall: connections opened upwards, and what was dropped, by what was wrong with it."""

    opened: int
    downwards: int
    past: int
    other: int


class Segments:
    """Levels of machines; `number` tells networks of one machine apart. `wires` are by the number of a firewall."""

    def __init__(
        self, levels: Sequence[Sequence[str]], *, wires: Mapping[int, Wire] | None = None, number: int = 1
    ) -> None:
        assert 2 <= len(levels) <= MAX_LEVELS
        assert 1 <= number <= 24, "number and level share a part of the address"
        self.levels = tuple(tuple(level) for level in levels)
        self._wires = dict(wires or {})
        self._number = number
        self._carriers: list[subprocess.Popen[str]] = []
        self._cut: set[int] = set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def top(self) -> str:
        """The address of this machine on level 0."""
        return self._address(0, 250)

    @property
    def machines(self) -> tuple[str, ...]:
        """All machines, from the uppermost."""
        return tuple(name for level in self.levels for name in level)

    def level(self, machine: str) -> int:
        """Return the level a machine is on."""
        return next(level for level, names in enumerate(self.levels) if machine in names)

    def address(self, machine: str) -> str:
        """Return a machine's address."""
        level = self.level(machine)
        return self._address(level, self.levels[level].index(machine) + 1)

    def command(self, machine: str, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs another one on a machine."""
        return ["ip", "netns", "exec", self._namespace(machine), *arguments]

    def run(self, machine: str, arguments: Sequence[str], *, code: int = 0) -> str:
        """Run a command on a machine, to its end, and return its standard output."""
        command = self.command(machine, arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        assert done.returncode == code, f"{arguments} on {machine}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def start(self) -> Self:
        """Make the network. Nothing may cross a firewall yet."""
        self._remove()
        try:
            for level, machines in enumerate(self.levels):
                self._add_level(level)
                for place, machine in enumerate(machines, start=1):
                    self._add_machine(machine, level, place)
            for number in range(1, len(self.levels)):
                self._add_firewall(number)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End what runs on the machines and remove the network."""
        for carrier in self._carriers:
            carrier.kill()
            carrier.communicate()
        self._carriers.clear()
        self._cut.clear()
        self._remove()

    def allow(self, number: int, port: int, *, to: str = "") -> None:
        """Let firewall `number` pass connections to a port of a machine of the level above; of this one at the top."""
        target = self.address(to) if to else self.top
        rule = ("-d", target, "-p", "tcp", "--dport", str(port), "-m", "conntrack", "--ctstate", "NEW")
        self._rule(number, "-I", "FORWARD", "2", "-i", "low", "-o", "up", *rule, "-j", "ACCEPT")

    def crossings(self, number: int) -> Crossings:
        """Return what a firewall has counted so far."""
        listed = self._rule(number, "-v", "-n", "-x", "-L", "FORWARD").splitlines()[2:]

        def count(pattern: str) -> int:
            return sum(int(line.split()[0]) for line in listed if re.search(pattern, line))

        drops = {name: count(f"/\\* {name} \\*/") for name in ("downwards", "past", "other")}
        return Crossings(opened=count(r"ACCEPT .* NEW"), **drops)

    def cut(self, number: int, *, reset: bool = False) -> None:
        """Lose everything at a firewall, also of connections that are open; with `reset` both ends are told at once."""
        if number not in self._cut:
            self._cut.add(number)
            how = ("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset") if reset else ("-j", "DROP")
            self._rule(number, "-I", "FORWARD", "1", *how)

    def heal(self, number: int) -> None:
        """Mend what was cut."""
        if number in self._cut:
            self._cut.discard(number)
            self._rule(number, "-D", "FORWARD", "1")

    def lost(self, number: int) -> int:
        """Return how many packets were lost at a firewall since it was cut; 0 when it is not."""
        if number not in self._cut:
            return 0
        return int(self._rule(number, "-v", "-n", "-x", "-L", "FORWARD", "1").split()[0])

    def bytes_down(self, number: int) -> int:
        """Return how many bytes have gone down through a firewall, with all headers."""
        text = self._in_firewall(number, "cat", "/sys/class/net/low/statistics/tx_bytes")
        return int(text)

    def _add_level(self, level: int) -> None:
        bridge = self._bridge(level)
        must("ip", "link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        if level == 0:
            must("ip", "addr", "add", f"{self.top}/24", "dev", bridge)
        must("ip", "link", "set", bridge, "up")

    def _add_machine(self, machine: str, level: int, place: int) -> None:
        namespace = self._namespace(machine)
        must("ip", "netns", "add", namespace)
        self._plug(namespace, "eth0", f"{PREFIX}{self._number}m{level}{place}", self._bridge(level))
        must("ip", "-n", namespace, "addr", "add", f"{self._address(level, place)}/24", "dev", "eth0")
        must("ip", "-n", namespace, "link", "set", "eth0", "up")
        must("ip", "-n", namespace, "link", "set", "lo", "up")
        if level:
            must("ip", "-n", namespace, "route", "add", "default", "via", self._address(level, 254))
        if level + 1 < len(self.levels):
            below = ("route", "add", self._net(level + 1), "via", self._address(level, 253))
            must("ip", "-n", namespace, *below)

    def _add_firewall(self, number: int) -> None:
        namespace = self._firewall(number)
        must("ip", "netns", "add", namespace)
        if wire := self._wires.get(number):
            self._lay(wire, number, namespace)
        else:
            self._plug(namespace, "up", f"{PREFIX}{self._number}f{number}u", self._bridge(number - 1))
        self._plug(namespace, "low", f"{PREFIX}{self._number}f{number}l", self._bridge(number))
        must("ip", "-n", namespace, "addr", "add", f"{self._address(number - 1, 253)}/24", "dev", "up")
        must("ip", "-n", namespace, "addr", "add", f"{self._address(number, 254)}/24", "dev", "low")
        for name in ("lo", "up", "low"):
            must("ip", "-n", namespace, "link", "set", "dev", name, "up")
        if number > 1:
            # So that what goes past the level above would find its way, were it let through.
            above = self._address(number - 1, 254)
            must("ip", "-n", namespace, "route", "add", "default", "via", above)
        else:
            # Answers of this machine go back by the firewall; elsewhere every machine has such a route.
            must("ip", "route", "add", self._net(1), "via", self._address(0, 253))
        self._in_firewall(number, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        answers = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
        self._rule(number, "-A", "FORWARD", *answers)
        # The last words of a connection that is closed open none.
        self._drop(number, "late", "-m", "conntrack", "--ctstate", "INVALID")
        self._drop(number, "downwards", "-i", "up")
        self._drop(number, "past", "-i", "low", "!", "-d", self._net(number - 1))
        self._drop(number, "other")

    def _lay(self, wire: Wire, number: int, namespace: str) -> None:
        outer, inner = f"{PREFIX}{self._number}w{number}o", f"{PREFIX}{self._number}w{number}i"
        settings = (str(wire.rate), str(wire.delay_s), str(wire.loss), str(wire.seed))
        carrier = subprocess.Popen(
            [sys.executable, "-m", "skerry.testing.slow_wire", outer, inner, *settings],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._carriers.append(carrier)
        assert carrier.stdout is not None
        assert carrier.stdout.readline() == "ready\n", "the wire was not laid"
        must("ip", "link", "set", outer, "master", self._bridge(number - 1), "up")
        must("ip", "link", "set", inner, "netns", namespace, "name", "up")

    def _plug(self, namespace: str, name: str, outer: str, bridge: str) -> None:
        must("ip", "link", "add", outer, "type", "veth", "peer", "name", name, "netns", namespace)
        must("ip", "link", "set", outer, "master", bridge, "up")

    def _drop(self, number: int, name: str, *match: str) -> None:
        self._rule(number, "-A", "FORWARD", *match, "-m", "comment", "--comment", name, "-j", "DROP")

    def _rule(self, number: int, *arguments: str) -> str:
        return self._in_firewall(number, "iptables", "-w", *arguments)

    def _in_firewall(self, number: int, *arguments: str) -> str:
        return must("ip", "netns", "exec", self._firewall(number), *arguments)

    def _remove(self) -> None:
        for place in sorted(Path("/run/netns").glob(f"{PREFIX}{self._number}-*")):
            inside = place.stat().st_ino
            try_command("ip", "netns", "del", place.name)
            end_processes(inside)
        for place in sorted(Path("/sys/class/net").glob(f"{PREFIX}{self._number}[a-z]*")):
            try_command("ip", "link", "del", place.name)

    def _address(self, level: int, place: int) -> str:
        return f"10.78.{self._number * 10 + level}.{place}"

    def _net(self, level: int) -> str:
        return f"{self._address(level, 0)}/24"

    def _bridge(self, level: int) -> str:
        return f"{PREFIX}{self._number}b{level}"

    def _namespace(self, machine: str) -> str:
        return f"{PREFIX}{self._number}-m{self.machines.index(machine)}"

    def _firewall(self, number: int) -> str:
        return f"{PREFIX}{self._number}-f{number}"
