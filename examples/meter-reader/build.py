"""Builds the whole example with one command: models, counter pictures, and the application's bundle.

    python examples/meter-reader/build.py [--out DIR] [--force] [--without-bundle]

Steps whose inputs have not changed are skipped. The figures of the last build are in `report.json` under the
output.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
APP = HERE / "app"
sys.path[:0] = [str(HERE), str(APP)]

from build_tools.bundle import build_bundle  # noqa: E402  the path above must come first
from build_tools.recipes import BROKEN_VERSION, VERSIONS  # noqa: E402
from build_tools.stamp import digest_file, digest_inputs, is_fresh, write_stamp  # noqa: E402

BUNDLE_NAME = "meter-reader.pyz"
MODEL_LIBRARIES = ("numpy", "scikit-learn", "onnx", "onnxruntime", "pillow")


def main(arguments: list[str] | None = None) -> int:
    """Build what is asked for, print the figures; the exit code for the process."""
    parser = argparse.ArgumentParser(description="Build the meter-reader example.")
    parser.add_argument(
        "--out", type=Path, default=HERE / "build", help="where everything goes (default: build/ here)"
    )
    parser.add_argument("--force", action="store_true", help="build all steps, changed or not")
    parser.add_argument("--without-bundle", action="store_true", help="leave out the application's bundle")
    asked = parser.parse_args(arguments)
    out: Path = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    build_data(out, force=asked.force)
    if not asked.without_bundle:
        build_app(out, force=asked.force)
    print_report(json.loads((out / "report.json").read_text(encoding="utf-8")))
    return 0


def build_data(out: Path, *, force: bool) -> None:
    """Counter pictures, models of all versions, and the report."""
    sources = [*sorted((HERE / "build_tools").glob("*.py")), *_app_sources()]
    inputs = digest_inputs(
        sources, [platform.python_version(), *(f"{name} {version_of(name)}" for name in MODEL_LIBRARIES)]
    )
    if not force and is_fresh(out, "models", inputs):
        print("models    unchanged")
        return
    # Loading them takes longer than to see that there is nothing to do.
    from build_tools.counters import compose_held_out, write_counters
    from build_tools.digits import load_split
    from build_tools.models import build_models

    started = time.monotonic()
    held_out = load_split().held_out
    counters = compose_held_out(held_out)
    written = write_counters(counters, out / "counters")
    models = build_models(out)
    report: dict[str, Any] = {
        "held_out": {"digits": len(held_out), "counters": len(counters)},
        "models": {
            version: {
                variant: {
                    **asdict(figures),
                    "size_bytes": (out / version / variant / "model.onnx").stat().st_size,
                }
                for variant, figures in variants.items()
            }
            for version, variants in models.items()
        },
    }
    written.append(_write_report(out, report))
    for version in (*VERSIONS, BROKEN_VERSION):
        written += sorted((out / version).rglob("model.*"))
    write_stamp(out, "models", inputs, written)
    print(f"models    {time.monotonic() - started:.1f} s")


def build_app(out: Path, *, force: bool) -> None:
    """The application's bundle."""
    requirements, target = HERE / "requirements.txt", out / BUNDLE_NAME
    sources = [HERE / "build_tools" / "bundle.py", requirements, *_app_sources()]
    facts = [platform.python_version(), platform.machine(), f"shiv {version_of('shiv')}"]
    inputs = digest_inputs(sources, facts)
    fresh = not force and is_fresh(out, "bundle", inputs)
    started = time.monotonic()
    if not fresh:
        build_bundle(APP, requirements, target)
        write_stamp(out, "bundle", inputs, [target])
    took = "unchanged" if fresh else f"{time.monotonic() - started:.1f} s"
    size_mb = target.stat().st_size / 1e6
    print(f"bundle    {took}, {size_mb:.1f} MB, sha256 {digest_file(target)[:12]}")


def print_report(report: dict[str, Any]) -> None:
    """The figures as a small table."""
    counts = report["held_out"]
    print(f"\nread rightly, of {counts['digits']} held-out digits and {counts['counters']} counters:")
    print(f"{'version':<9}{'variant':<9}{'digits':>8}{'on counters':>13}{'whole counters':>16}{'bytes':>9}")
    for version, variants in report["models"].items():
        for variant, of in variants.items():
            shares = f"{of['digits']:>8.3f}{of['counter_digits']:>13.3f}{of['counters']:>16.3f}"
            print(f"{version:<9}{variant:<9}{shares}{of['size_bytes']:>9}")
    print(f"{BROKEN_VERSION:<9}broken on purpose: it must be refused")


def _write_report(out: Path, report: dict[str, Any]) -> Path:
    path = out / "report.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def _app_sources() -> list[Path]:
    return sorted((APP / "meter_reader").glob("*.py"))


if __name__ == "__main__":
    sys.exit(main())
