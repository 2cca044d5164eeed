"""Metered links: told where the default route leads over a modem, silent where nobody can know, stated otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.facts import HostDetector, override_facts, read_facts
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree
from skerry.adapters.facts.uplink import detect_metered, find_uplinks
from skerry.spec.facts import Fact
from skerry.testing.lan import Lan, lan_problem
from tests.unit.machines import unpack

DEFAULT, OWN = ("00000000", "00000000"), ("0000A8C0", "00FFFFFF")
ANYWHERE, PREFIX = ("0" * 32, "00"), ("fe80" + "0" * 28, "40")
REACHABLE_V6, REFUSED_V6 = "00000003", "00200200"


def v4(interface: str, metric: int, *, to: tuple[str, str] = DEFAULT, flags: str = "0003") -> str:
    return f"{interface}\t{to[0]}\t0101A8C0\t{flags}\t0\t0\t{metric}\t{to[1]}\t0\t0\t0"


def v6(interface: str, metric: int, *, to: tuple[str, str] = ANYWHERE, flags: str = REACHABLE_V6) -> str:
    return (
        f"{to[0]} {to[1]} {'0' * 32} 00 fe80{'0' * 27}1 {metric:08x} 00000001 00000000 {flags} {interface:>8}"
    )


class Box:
    """A machine with the interfaces and routes that a test gives it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.interface("eth0")
        self.interface("wwan0", "DEVTYPE=wwan\nINTERFACE=wwan0\n")

    def interface(self, name: str, uevent: str = "", *lower: str) -> Path:
        folder = self.root / "sys/class/net" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uevent").write_text(uevent)
        for below in lower:
            (folder / f"lower_{below}").symlink_to(f"../{below}")
        return folder

    def write(self, path: str, *lines: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))

    def routes(self, *lines: str) -> None:
        self.write("proc/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask", *lines)

    def routes_v6(self, *lines: str) -> None:
        self.write("proc/net/ipv6_route", *lines, v6("lo", 0xFFFFFFFF, flags=REFUSED_V6))

    def metered(self) -> Fact | None:
        found = Findings()
        detect_metered(Tree(self.root), found)
        return found.finish().get("link.metered")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_default_route_over_a_modem_is_metered_and_says_where_that_was_read(tmp_path: Path) -> None:
    machine = unpack("mobile-gateway", tmp_path)
    assert read_facts(machine.root)["link.metered"] == Fact(
        value=True, source="/proc/net/route: wwan0; /sys/class/net/wwan0/uevent: DEVTYPE=wwan"
    )


@pytest.mark.parametrize("interface", ("eth0", "wlan0", "tun0", "br0", "gone0"))
def test_what_is_no_modem_may_lead_to_anything_and_is_neither_true_nor_false(
    box: Box, interface: str
) -> None:
    box.interface("wlan0", "DEVTYPE=wlan\n")
    box.interface("tun0")
    box.interface("br0", "DEVTYPE=bridge\n", "eth0")
    box.routes(v4(interface, 100), v4("wwan0", 700))
    assert box.metered() is None


@pytest.mark.parametrize(
    ("routes", "metered"),
    (
        ((v4("eth0", 100), v4("wwan0", 700)), False),
        ((v4("wwan0", 700), v4("eth0", 1024)), True),
        ((v4("wwan0", 9), v4("eth0", 10)), True),
        ((v4("eth0", 5), v4("wwan0", 5)), False),
        ((v4("wwan0", 5), v4("eth0", 5)), True),
        ((v4("wwan0", 1, to=OWN), v4("eth0", 100)), False),
        ((v4("eth0", 1, flags="0201"), v4("wwan0", 700)), True),
        ((v4("eth0", 1, flags="0002"), v4("wwan0", 700)), True),
        # Half of everywhere is what some tunnels put before the default route, which stays as it is.
        ((v4("tun0", 0, to=("00000000", "00000080")), v4("wwan0", 700)), True),
        ((), False),
    ),
)
def test_of_several_default_routes_the_one_with_the_lowest_metric_counts(
    box: Box, routes: tuple[str, ...], metered: bool
) -> None:
    box.routes(*routes)
    fact = box.metered()
    assert (fact is not None and fact.value) is metered


def test_ipv6_has_a_default_route_of_its_own_and_the_one_that_refuses_is_none(box: Box) -> None:
    box.routes_v6(v6("wwan0", 1, to=PREFIX), v6("eth0", 100))
    assert box.metered() is None
    box.routes_v6(v6("eth0", 1024), v6("wwan0", 700))
    fact = box.metered()
    assert fact is not None and fact.source.startswith("/proc/net/ipv6_route: wwan0; ")
    # Which of the two families is used depends on whom one calls.
    box.routes(v4("eth0", 100))
    assert box.metered() == fact
    box.routes_v6()
    assert box.metered() is None


def test_a_channel_or_a_bond_of_modems_is_a_modem_and_one_that_a_cable_is_in_is_not(box: Box) -> None:
    box.interface("qmimux0", "", "wwan0")
    box.interface("wwan1", "DEVTYPE=wwan\n")
    box.interface("bond0", "", "wwan0", "wwan1")
    box.interface("bond1", "", "eth0", "wwan0")
    box.interface("x0")
    box.interface("bond2", "", "wwan0", "x0")
    box.interface("loop0", "", "loop0")
    for interface, metered in (
        ("qmimux0", True),
        ("bond0", True),
        ("bond1", False),
        ("bond2", False),
        ("loop0", False),
    ):
        box.routes(v4(interface, 100))
        assert (box.metered() is not None) is metered, interface


def test_a_port_of_the_kernels_wwan_class_is_a_modem_without_saying_so_itself(box: Box) -> None:
    device = box.interface("mhi_hwip0") / "device"
    box.routes(v4("mhi_hwip0", 100))
    assert box.metered() is None
    (device / "wwan" / "wwan0").mkdir(parents=True)
    fact = box.metered()
    assert fact is not None and "mhi_hwip0/device: wwan" in fact.source


def test_who_dials_over_a_serial_line_pays_and_who_dials_by_pppoe_may_not(box: Box) -> None:
    box.interface("ppp0", "DEVTYPE=ppp\n")
    box.routes(v4("ppp0", 0))
    assert box.metered() is not None
    head = "Id       Address              Device"
    box.write("proc/net/pppoe", head)
    assert box.metered() is not None, "the module alone opens no session"
    box.write("proc/net/pppoe", head, "00000001 02:00:00:00:00:01     eth0")
    assert box.metered() is None


def test_what_is_stated_overrules_the_modem(tmp_path: Path) -> None:
    facts = read_facts(unpack("mobile-gateway", tmp_path).root)
    assert override_facts(facts, {"link.metered": "false"})["link.metered"] == Fact(
        value=False, source="override"
    )
    assert "link.metered" not in override_facts(facts, {"link.metered": ""})


def test_a_change_of_the_default_route_is_seen_at_the_next_look_and_other_routes_are_not(
    tmp_path: Path,
) -> None:
    machine = unpack("mobile-gateway", tmp_path)
    detector = HostDetector(machine.root)
    over_modem = detector.look()
    routes = machine.root / "proc/net/route"
    modem = routes.read_text()
    routes.write_text(modem + v4("enp2s0", 10, to=OWN) + "\n")
    assert detector.look() == over_modem
    routes.write_text(modem + v4("enp2s0", 100) + "\n")
    assert detector.look() != over_modem
    assert "link.metered" not in detector.detect()
    routes.write_text(modem)
    assert detector.look() == over_modem
    assert detector.detect()["link.metered"].value is True


_words = st.sampled_from(
    ("00000000", "0003", "wwan0", "../..", "..", "0" * 32, "00", "ffffffff", "-1", "\0", "eth0\u20ac")
)
_lines = st.lists(_words | st.text(max_size=8), max_size=12).map("\t".join)


@given(st.lists(_lines | st.sampled_from((v4("../../x", 1), v4("..", 1), v6(".", 1))), max_size=6))
def test_any_lines_name_interfaces_that_may_be_looked_up_or_none(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    root = tmp_path_factory.mktemp("routes")
    (root / "proc/net").mkdir(parents=True)
    for name in ("route", "ipv6_route"):
        (root / "proc/net" / name).write_text("\n".join(lines), encoding="utf-8", errors="replace")
    for uplink in find_uplinks(Tree(root)):
        assert uplink.interface not in (".", "..") and "/" not in uplink.interface
        assert uplink.interface.isascii() and uplink.interface.isprintable()


# ── a real kernel ────────────────────────────────────────────────────────────────────────────────────

TELL = """
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree
from skerry.adapters.facts.uplink import detect_metered, find_uplinks
from pathlib import Path
found, tree = Findings(), Tree(Path("/"))
detect_metered(tree, found)
print([*map(tuple, find_uplinks(tree))], "link.metered" in found.facts)
"""


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(("a",), number=96) as made:
        yield made


@pytest.mark.netns
@pytest.mark.skipif(lan_problem() != "", reason=lan_problem())
def test_routes_are_read_as_a_real_kernel_writes_them(lan: Lan) -> None:
    def told() -> str:
        return lan.run("a", [sys.executable, "-c", TELL]).strip()

    def ip(*arguments: str) -> None:
        lan.run("a", ["ip", *arguments])

    assert told() == "[('eth0', '/proc/net/route')] False"
    # A pair of ends stands in for a dialled line: only its name matters here.
    ip("link", "add", "ppp0", "type", "veth", "peer", "name", "far0")
    ip("link", "set", "far0", "up")
    ip("link", "set", "ppp0", "up")
    ip("route", "add", "default", "dev", "ppp0", "metric", "700")
    assert told() == "[('eth0', '/proc/net/route')] False"
    ip("route", "add", "blackhole", "default", "metric", "800")
    ip("route", "del", "default", "dev", "eth0")
    assert told() == "[('ppp0', '/proc/net/route')] True"
    ip("route", "del", "default", "dev", "ppp0")
    assert told() == "[] False"
    ip("-6", "route", "add", "default", "dev", "ppp0", "metric", "700")
    assert told() == "[('ppp0', '/proc/net/ipv6_route')] True"
    ip("-6", "route", "add", "default", "dev", "eth0", "metric", "100")
    assert told() == "[('eth0', '/proc/net/ipv6_route')] False"
