"""What a delta costs beside a pull and beside other tools, and what applying it takes.

Corpora are made by `delivery_debian`, `delivery_wheels` and `delivery_weights` into `build/bench/delivery`, from
the archives of Debian and PyPI and by training. Bytes include everything that travels. A pull moves the changed
layer packed by gzip, as registries send it. CPU time is of one process, which does one thing at a time.

A part is a function of the `Bench`; `PARTS` names them in the order of the table. What sums up comes last.
"""

from __future__ import annotations

import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from skerry.delivery.delta_apply import DeltaApplier
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.delta_format import read_header
from skerry.delivery.words import Words, choose_words
from tests.bench.delivery_debian import make_rootfs_pair
from tests.bench.delivery_peers import Peers, Sent, Tool, Usage
from tests.bench.delivery_snap import snap_figures
from tests.bench.delivery_weights import WeightPair, make_weight_pairs
from tests.bench.delivery_wheels import make_dependency_bump, make_library_upgrade
from tests.bench.figure import Figure
from tests.unit.test_delta_memory import growth_of

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "bench" / "delivery"
TYPES = {"fp32": ("fp32",), "16bit": ("fp16", "bf16"), "int8": ("int8",)}
DELTA_TOOLS: tuple[Tool, ...] = ("xdelta3", "zstd --patch-from", "bsdiff", "ostree")
LAYER_TOOLS: tuple[Tool, ...] = ("gzip", "zstd -19", "casync", *DELTA_TOOLS)
GOALS = {"fp32": 0.75, "16bit": 0.60, "int8": 0.32}


class Measured(NamedTuple):
    """A delta and its file's size, and CPU seconds to make it and to apply it."""

    delta: bytes
    target_bytes: int
    encode_s: float
    apply_s: float
    apply_numpy_s: float


class Bench(NamedTuple):
    """What the parts share: the other tools, and what was measured so far."""

    peers: Peers
    measured: list[Measured]


def figures() -> Iterator[Figure]:
    """Measure all corpora."""
    CACHE.mkdir(parents=True, exist_ok=True)
    bench = Bench(Peers(CACHE), [])
    for part in PARTS:
        yield from part(bench)


def layer_figures(bench: Bench) -> Iterator[Figure]:
    """Measure layers of images."""
    for name, goal, (old, new) in (
        ("rootfs_update", 0.022, make_rootfs_pair(CACHE)),
        ("dependency_bump", 0.003, make_dependency_bump(CACHE)),
        ("library_upgrade", 0.0, make_library_upgrade(CACHE)),
    ):
        measured = measure(old, new)
        bench.measured.append(measured)
        sent: dict[Tool, Sent | None] = {
            tool: told(bench.peers.measure(tool, old, new), tool, new) for tool in LAYER_TOOLS
        }
        delta_bytes, mb = len(measured.delta), measured.target_bytes / 1e6
        shown = ", ".join(shown_of(sent, lambda one: one.size_bytes / 1e6))
        yield Figure(f"{name}_mb", delta_bytes / 1e6, "MB", f"of {mb:.0f}: {shown}")
        against: Tool = "gzip" if goal else "bsdiff"
        peer = sent[against]
        if peer is not None:
            which, wanted = ("pull", goal) if goal else ("bsdiff", 0.9)
            yield Figure(
                f"bytes_ratio_vs_{which}_{name}", delta_bytes / peer.size_bytes, "", f"goal {wanted}"
            )
        with tempfile.NamedTemporaryFile(dir=CACHE) as delta:
            delta.write(measured.delta)
            delta.flush()
            ours = bench.peers.apply_ours(Path(delta.name), old, new)
        applied: dict[Tool, Usage | None] = {
            tool: one.applied for tool, one in sent.items() if one is not None
        }
        yield from apply_figures(name, ours, applied, mb)


def told(sent: Sent | None, tool: Tool, new: Path) -> Sent | None:
    """Print a tool's result on stderr, and return it."""
    size = "not run, for want of memory" if sent is None else f"{sent.size_bytes:,} B"
    print(f"bench: {new.name}: {tool} {size}", file=sys.stderr)
    return sent


def shown_of(sent: dict[Tool, Sent | None], value: Callable[[Sent], float]) -> Iterator[str]:
    """Yield each tool with its value, or that it was not run."""
    for tool, one in sent.items():
        yield f"{tool} not run" if one is None else f"{tool} {value(one):.3g}"


def apply_figures(name: str, ours: Usage, others: dict[Tool, Usage | None], mb: float) -> Iterator[Figure]:
    """Yield what applying takes: processes from start to end, the file written."""
    used = {tool: usage for tool, usage in others.items() if usage is not None}
    cpu = ", ".join(f"{tool} {usage.cpu_s / mb:.2g}" for tool, usage in used.items())
    yield Figure(f"{name}_apply_cpu_s_per_mb", ours.cpu_s / mb, "s/MB", f"without numpy; {cpu}")
    peak = ", ".join(f"{tool} {usage.peak_rss_bytes / 1e6:.0f}" for tool, usage in used.items())
    yield Figure(f"{name}_apply_peak_rss_mb", ours.peak_rss_bytes / 1e6, "MB", f"Python and all; {peak}")


def weight_figures(bench: Bench) -> Iterator[Figure]:
    """Measure models."""
    ratios: dict[tuple[str, str], float] = {}
    others: dict[tuple[str, str], dict[Tool, float]] = {}
    for pair in make_weight_pairs(CACHE):
        measured = measure(pair.old, pair.new)
        bench.measured.append(measured)
        tools: tuple[Tool, ...] = ("gzip", *DELTA_TOOLS)
        sent: dict[Tool, Sent | None] = {
            tool: bench.peers.measure(tool, pair.old, pair.new) for tool in tools
        }
        sizes: dict[Tool, int] = {tool: one.size_bytes for tool, one in sent.items() if one is not None}
        gzip_bytes, key = sizes.pop("gzip"), (pair.name, pair.kind)
        ratios[key] = len(measured.delta) / gzip_bytes
        others[key] = {tool: size / gzip_bytes for tool, size in sizes.items()}
        say_pair(pair, measured, ratios[key])
    tuned = {key: ratio for key, ratio in ratios.items() if key[0].endswith(("sgd", "adam"))}
    for name, kinds in TYPES.items():
        group = {key: ratio for key, ratio in tuned.items() if key[1] in kinds}
        shown = ", ".join(f"{model} {kind} {ratio:.3f}" for (model, kind), ratio in group.items())
        peers = ", ".join(
            f"{tool} {mean_of([others[key][tool] for key in group]):.3g}"
            for tool in DELTA_TOOLS
            if all(tool in others[key] for key in group)
        )
        yield Figure(
            f"bytes_ratio_vs_gzip_finetune_{name}",
            mean_of(list(group.values())),
            "",
            f"goal {GOALS[name]}; {peers}; ours: {shown}",
        )
    for key, ratio in ratios.items():
        if key not in tuned:
            shown = ", ".join(f"{tool} {value:.3g}" for tool, value in others[key].items())
            yield Figure(f"bytes_ratio_vs_gzip_{key[0].replace('-', '_')}_{key[1]}", ratio, "", shown)


def mean_of(ratios: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def cost_figures(bench: Bench) -> Iterator[Figure]:
    """Sum up what making and applying took, over all pairs of the parts before."""
    total = sum(measured.target_bytes for measured in bench.measured)
    numpy_s = sum(measured.apply_numpy_s for measured in bench.measured)
    yield Figure(
        "apply_mb_per_cpu_s",
        total / 1e6 / sum(measured.apply_s for measured in bench.measured),
        "MB/s",
        f"all pairs, without numpy; with numpy {total / 1e6 / numpy_s:.3g}",
    )
    yield Figure(
        "encode_mb_per_cpu_s",
        total / 1e6 / sum(measured.encode_s for measured in bench.measured),
        "MB/s",
        "all pairs, zstd level 19",
    )


def memory_figures(_: Bench) -> Iterator[Figure]:
    """Measure how memory grows with a large file."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        growth = growth_of(Path(folder), 1 << 30, "plain")
    yield Figure("apply_peak_rss_over_base_mb", growth / 1e6, "MB", "a file of 1 GiB, without numpy; goal 32")


def measure(old: Path, new: Path) -> Measured:
    """Encode and apply."""
    delta = io.BytesIO()
    with old.open("rb") as base, new.open("rb") as target:
        begun = time.process_time()
        encode_delta(base=base, target=target, sink=delta.write, words=choose_words())
        encode_s = time.process_time() - begun
    plain, numpy = (apply_s(delta, old, choose_words(numpy=numpy)) for numpy in (False, True))
    return Measured(delta.getvalue(), new.stat().st_size, encode_s, plain, numpy)


def apply_s(delta: io.BytesIO, old: Path, words: Words) -> float:
    """Return the CPU seconds of applying to a verified base; the result is checked on the way."""
    delta.seek(0)
    with old.open("rb") as base, tempfile.TemporaryFile(dir=CACHE) as output:
        begun = time.process_time()
        header, header_bytes = read_header(delta)
        applier = DeltaApplier(header, base=base, output=output, words=words)
        for _ in applier.run(delta, applier.begin(header_bytes)):
            pass
        return time.process_time() - begun


def say_pair(pair: WeightPair, measured: Measured, ratio: float) -> None:
    """Print a pair's result on stderr."""
    print(f"bench: {pair.name} {pair.kind}: {len(measured.delta):,} B, {ratio:.4f} of gzip", file=sys.stderr)


Part = Callable[[Bench], Iterator[Figure]]
PARTS: tuple[Part, ...] = (
    layer_figures,
    weight_figures,
    lambda _: snap_figures(CACHE),
    cost_figures,
    memory_figures,
)
