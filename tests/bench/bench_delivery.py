"""What a delta costs beside a pull and beside other tools, and what applying it takes.

Corpora are made by `delivery_debian`, `delivery_wheels` and `delivery_weights` into `build/bench/delivery`, from
the archives of Debian and PyPI and by training. Bytes include everything that travels. A pull moves the changed
layer packed by gzip, as registries send it. CPU time is of this process, which does one thing at a time.
"""

from __future__ import annotations

import io
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from skerry.delivery.delta_apply import DeltaApplier
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.delta_format import read_header
from skerry.delivery.words import Words, choose_words
from tests.bench.delivery_debian import make_rootfs_pair
from tests.bench.delivery_peers import Peers, Tool
from tests.bench.delivery_weights import WeightPair, make_weight_pairs
from tests.bench.delivery_wheels import make_dependency_bump, make_library_upgrade
from tests.bench.figure import Figure
from tests.unit.test_delta_memory import growth_of

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "bench" / "delivery"
TYPES = {"fp32": ("fp32",), "16bit": ("fp16", "bf16"), "int8": ("int8",)}
TOOLS: tuple[Tool, ...] = ("gzip", "zstd -19", "casync", "xdelta3", "zstd --patch-from", "bsdiff")
BSDIFF_LIMIT_BYTES = 180_000_000
GOALS = {"fp32": 0.75, "16bit": 0.60, "int8": 0.32}


class Measured(NamedTuple):
    """A delta's bytes, and CPU seconds to make it and to apply it."""

    delta_bytes: int
    target_bytes: int
    encode_s: float
    apply_s: float
    apply_numpy_s: float


def figures() -> Iterator[Figure]:
    """Measure all corpora."""
    CACHE.mkdir(parents=True, exist_ok=True)
    peers = Peers(CACHE)
    all_measured: list[Measured] = []
    yield from layer_figures(peers, all_measured)
    yield from weight_figures(peers, all_measured)
    peers.close()
    total = sum(measured.target_bytes for measured in all_measured)
    numpy_s = sum(measured.apply_numpy_s for measured in all_measured)
    yield Figure(
        "apply_mb_per_cpu_s",
        total / 1e6 / sum(measured.apply_s for measured in all_measured),
        "MB/s",
        f"all pairs, without numpy; with numpy {total / 1e6 / numpy_s:.3g}",
    )
    yield Figure(
        "encode_mb_per_cpu_s",
        total / 1e6 / sum(measured.encode_s for measured in all_measured),
        "MB/s",
        "all pairs, zstd level 19",
    )
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        growth = growth_of(Path(folder), 1 << 30, "plain")
    yield Figure("apply_peak_rss_over_base_mb", growth / 1e6, "MB", "a file of 1 GiB, without numpy; goal 32")


def layer_figures(peers: Peers, all_measured: list[Measured]) -> Iterator[Figure]:
    """Measure layers of images."""
    for name, goal, (old, new) in (
        ("rootfs_update", 0.022, make_rootfs_pair(CACHE)),
        ("dependency_bump", 0.003, make_dependency_bump(CACHE)),
        ("library_upgrade", 0.0, make_library_upgrade(CACHE)),
    ):
        measured = measure(old, new)
        all_measured.append(measured)
        # bsdiff takes 17 times a file's size of memory, and many minutes.
        tools: list[Tool] = [
            tool for tool in TOOLS if tool != "bsdiff" or new.stat().st_size < BSDIFF_LIMIT_BYTES
        ]
        others = {tool: peers.size_of(tool, old, new) for tool in tools}
        shown = ", ".join(f"{tool} {size / 1e6:.3g}" for tool, size in others.items())
        yield Figure(
            f"{name}_mb", measured.delta_bytes / 1e6, "MB", f"of {new.stat().st_size / 1e6:.0f}: {shown}"
        )
        if goal:
            ratio = measured.delta_bytes / others["gzip"]
            yield Figure(f"bytes_ratio_vs_pull_{name}", ratio, "", f"goal {goal}")
        else:
            ratio = measured.delta_bytes / others["bsdiff"]
            yield Figure(f"bytes_ratio_vs_bsdiff_{name}", ratio, "", "goal 0.9")


def weight_figures(peers: Peers, all_measured: list[Measured]) -> Iterator[Figure]:
    """Measure models."""
    ratios: dict[tuple[str, str], float] = {}
    for pair in make_weight_pairs(CACHE):
        measured = measure(pair.old, pair.new)
        all_measured.append(measured)
        ratios[pair.name, pair.kind] = measured.delta_bytes / peers.size_of("gzip", pair.old, pair.new)
        say_pair(pair, measured, ratios[pair.name, pair.kind])
    tuned = {key: ratio for key, ratio in ratios.items() if key[0].endswith(("sgd", "adam"))}
    for name, kinds in TYPES.items():
        group = {key: ratio for key, ratio in tuned.items() if key[1] in kinds}
        mean = math.exp(sum(map(math.log, group.values())) / len(group))
        shown = ", ".join(f"{model} {kind} {ratio:.3f}" for (model, kind), ratio in group.items())
        yield Figure(f"bytes_ratio_vs_gzip_finetune_{name}", mean, "", f"goal {GOALS[name]}; {shown}")
    for (model, kind), ratio in ratios.items():
        if (model, kind) not in tuned:
            yield Figure(f"bytes_ratio_vs_gzip_{model.replace('-', '_')}_{kind}", ratio, "")


def measure(old: Path, new: Path) -> Measured:
    """Encode and apply."""
    delta = io.BytesIO()
    with old.open("rb") as base, new.open("rb") as target:
        begun = time.process_time()
        encode_delta(base=base, target=target, sink=delta.write, words=choose_words())
        encode_s = time.process_time() - begun
    plain, numpy = (apply_s(delta, old, choose_words(numpy=numpy)) for numpy in (False, True))
    return Measured(delta.tell(), new.stat().st_size, encode_s, plain, numpy)


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
    print(f"bench: {pair.name} {pair.kind}: {measured.delta_bytes:,} B, {ratio:.4f} of gzip", file=sys.stderr)
