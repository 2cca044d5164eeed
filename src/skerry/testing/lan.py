"""A real network of network namespaces: hosts on a bridge, whose links are cut, mended and throttled.

It needs root and `ip`; to throttle also `tc` and `iptables`, and what they need of the kernel.

Every host has a namespace of its own with one interface on the bridge, and reaches this machine's own processes (a
hub, say) at `gateway`, until `cut_uplink`. Nothing is left behind: `close` removes what `Lan` made, and what an
earlier run of the same name was killed over is removed at the start.

One direction of a link is cut by a routing rule of the receiver (`ip rule ... blackhole`): what comes from there is
lost as on a broken cable, not refused as by a closed port. It needs neither a firewall nor a module.

A link is made narrow by a token bucket at both of its ends, each for what that end sends. Packets are lost at random
on the host, behind the bucket of what comes and before the bucket of what goes, and nobody is told of it there either.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Self

PREFIX = "skt"
COMMAND_S = 20.0
MAX_HOSTS = 9
FRAME_BYTES = 1514
QUEUE_FRAMES = 10
BURST_PART = 50  # of a second


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


@cache
def throttle_problem() -> str:
    """Return why no link can be throttled here; empty when it can. Tries it once, in a namespace of its own."""
    if problem := lan_problem():
        return problem
    for program in ("tc", "iptables"):
        if shutil.which(program) is None:
            return f"there is no program {program}"
    namespace = f"{PREFIX}-probe-{os.getpid()}"
    made = try_command("ip", "netns", "add", namespace)
    if made.returncode != 0:
        return f"no network namespace: {_why(made)}"
    try:
        commands = (
            ("tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", *_bucket(1 << 20, 500)),
            *(("ip", "netns", "exec", namespace, *_loss("-A", chain, 0.5)) for chain in ("INPUT", "OUTPUT")),
        )
        for command in commands:
            done = try_command(*command)
            if done.returncode != 0:
                return f"{' '.join(command)}: {_why(done)}"
    finally:
        try_command("ip", "netns", "del", namespace)
    return ""


def burst_bytes(rate: int) -> int:
    """Return how much of a throttled link's rate may come at once: two packets, or a fiftieth of a second's worth."""
    return max(2 * FRAME_BYTES, rate // BURST_PART)


class Lan:
    """A network `10.77.NUMBER.0/24` with the hosts that are named; `number` tells networks of one machine apart."""

    def __init__(self, hosts: Sequence[str], *, number: int = 1) -> None:
        assert 1 <= len(hosts) <= MAX_HOSTS, "one digit numbers the hosts"
        assert 1 <= number <= 99, "interface names have 15 characters"
        self.hosts = tuple(hosts)
        self._number = number
        self._bridge = f"{PREFIX}{number}br"
        self._cut: set[tuple[str, str]] = set()
        self._loss: dict[str, float] = {}

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

    def throttle(self, host: str, *, rate: int | None, loss: float = 0.0, queue_ms: int = 500) -> None:
        """Make a host's link narrow and bad, in each direction: it has one throttle, and this one replaces another.

        `rate` is in bytes per second, with the headers of Ethernet, IP and TCP; None leaves it as fast as it is.
        Above it `burst_bytes` may come at once. What waits longer than `queue_ms`, and than ten packets take, is
        dropped. `loss` is the share of IPv4 packets that are lost on top; neither end is told.
        """
        assert rate is None or rate > 0, "a link that carries nothing is unplugged"
        assert 0 <= loss <= 1, "loss is a share"
        self.unthrottle(host)
        if rate is not None:
            bucket = _bucket(rate, queue_ms)
            must("tc", "qdisc", "add", "dev", self._outer(host), "root", *bucket)
            must("tc", "-n", self.namespace(host), "qdisc", "add", "dev", "eth0", "root", *bucket)
        if loss:
            self._loss[host] = loss
            for chain in ("INPUT", "OUTPUT"):
                must(*self.command(host, _loss("-A", chain, loss)))

    def unthrottle(self, host: str) -> None:
        """Give a host its whole link back."""
        # Fails where there is none, which is as it should be.
        try_command("tc", "qdisc", "del", "dev", self._outer(host), "root")
        try_command("tc", "-n", self.namespace(host), "qdisc", "del", "dev", "eth0", "root")
        if host in self._loss:
            loss = self._loss.pop(host)
            for chain in ("INPUT", "OUTPUT"):
                must(*self.command(host, _loss("-D", chain, loss)))

    def lost_packets(self, host: str) -> tuple[int, int]:
        """Return how many packets to a host and from it its throttle has lost on purpose so far."""
        if host not in self._loss:
            return 0, 0
        listed = [self.run(host, ["iptables", "-w", "-v", "-S", chain]) for chain in ("INPUT", "OUTPUT")]
        found = [re.search(r"-m statistic .*-c ([0-9]+) [0-9]+", text) for text in listed]
        to_host, from_host = (int(match[1]) if match else 0 for match in found)
        return to_host, from_host

    def bytes_to(self, host: str) -> int:
        """Return how many bytes have gone down the link to a host, with all headers; what is lost behind it counts."""
        return int(Path("/sys/class/net", self._outer(host), "statistics/tx_bytes").read_text())

    def bytes_from_gateway(self) -> int:
        """Return how many bytes this machine's own processes have sent to the hosts, and nobody else's."""
        return int(Path("/sys/class/net", self._bridge, "statistics/tx_bytes").read_text())

    def heal(self) -> None:
        """Mend every link between hosts, and plug everybody in; what is throttled stays so."""
        while self._cut:
            source, target = self._cut.pop()
            self._apply(target, source, "del")
        for host in self.hosts:
            self.plug(host)

    def close(self) -> None:
        """End what runs on the hosts and remove the network."""
        self._loss.clear()
        self._remove()

    def _add(self, host: str) -> None:
        namespace, outer = self.namespace(host), self._outer(host)
        self._ip("netns", "add", namespace)
        self._ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        # Every packet goes by itself, as on a wire: else up to 64 KiB are counted, and lost, as one with one header.
        self._ip("link", "set", outer, "master", self._bridge, "gso_max_segs", "1", "up")
        for arguments in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address(host)}/24", "dev", "eth0"),
            ("link", "set", "eth0", "gso_max_segs", "1", "up"),
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
            inside = place.stat().st_ino
            # Its name first: after that nothing new gets in.
            try_command("ip", "netns", "del", place.name)
            end_processes(inside)
        for place in sorted(Path("/sys/class/net").glob(f"{PREFIX}{self._number}v[0-9]")):
            try_command("ip", "link", "del", place.name)
        if Path("/sys/class/net", self._bridge).exists():
            try_command("ip", "link", "del", self._bridge)

    def _ip(self, *arguments: str) -> None:
        must("ip", *arguments)


def _bucket(rate: int, queue_ms: int) -> list[str]:
    """Return tc's arguments for a token bucket filter; without a queue of some packets TCP would hardly move."""
    burst = burst_bytes(rate)
    queue = max(QUEUE_FRAMES * FRAME_BYTES, rate * queue_ms // 1000)
    return ["tbf", "rate", f"{rate * 8}bit", "burst", f"{burst}b", "limit", f"{burst + queue}b"]


def _loss(what: str, chain: str, share: float) -> list[str]:
    """Return the command that adds or deletes the rule that loses packets of a chain at random."""
    # Who sends what a rule of OUTPUT drops is told at once: UDP by an error, and TCP does not take it for lost. A
    # packet that is given to a queue where nobody listens is gone, and nobody is told.
    way, target = ("-i", ("DROP",)) if chain == "INPUT" else ("-o", ("NFQUEUE", "--queue-num", "9"))
    chance = ("-m", "statistic", "--mode", "random", "--probability", f"{share:.9f}")
    return ["iptables", "-w", what, chain, way, "eth0", *chance, "-j", *target]


def end_processes(inside: int) -> None:
    """Kill what runs in the network namespace of that inode."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if Path(place, "ns/net").stat().st_ino == inside:
                os.kill(int(place.name), signal.SIGKILL)


def must(*arguments: str) -> str:
    """Run a command and return its standard output; it must succeed."""
    done = try_command(*arguments)
    assert done.returncode == 0, f"{' '.join(arguments)}: {_why(done)}"
    return done.stdout


def _why(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())[:200] or f"exit {done.returncode}"


def try_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended."""
    return subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
