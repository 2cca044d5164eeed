"""What the example builds: its data are kept apart, its models are as good as said, its documents fit."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

from tests.unit.meter_reader.building import EXAMPLE, build, need_libraries

need_libraries()

import numpy as np  # noqa: E402  skipped first where it is missing
from build_tools.counters import compose_held_out, encode_png  # noqa: E402
from build_tools.digits import load_split  # noqa: E402
from build_tools.image import write_layout  # noqa: E402
from build_tools.stamp import is_fresh, write_stamp  # noqa: E402

from skerry.spec.documents import kind_of  # noqa: E402
from skerry.spec.parsing import parse_documents  # noqa: E402


def test_held_out_digits_share_nothing_with_training_digits() -> None:
    split = load_split()
    training, held_out = set(split.training.places.tolist()), set(split.held_out.places.tolist())
    assert (len(training), len(held_out)) == (1200, 597)
    assert not training & held_out
    pixels = {image.tobytes() for image in split.training.images}
    assert not pixels & {image.tobytes() for image in split.held_out.images}


def test_the_digits_in_model_json_come_from_training(built: Path) -> None:
    known = {image.astype(int).tobytes() for image in load_split().training.images}
    for path in built.rglob("model.json"):
        check = json.loads(path.read_text(encoding="utf-8"))["self_check"]
        assert check["digits"] == "0123456789"
        assert {np.array(image).reshape(1, 8, 8).tobytes() for image in check["images"]} <= known


def test_counters_use_each_held_out_digit_at_most_once(truth: list[dict[str, Any]]) -> None:
    used = [place for counter in truth for place in counter["places"]]
    assert len(used) == len(set(used)) == 595
    assert set(used) <= set(load_split().held_out.places.tolist())


def test_counter_files_hold_what_is_composed(built: Path, truth: list[dict[str, Any]]) -> None:
    counters = compose_held_out(load_split().held_out)
    assert [counter.digits for counter in counters] == [each["digits"] for each in truth]
    assert encode_png(counters[7].picture) == (built / "counters" / truth[7]["file"]).read_bytes()


# --- models ----------------------------------------------------------------------------------------------


def test_the_newer_model_reads_better(figures: dict[str, Any]) -> None:
    for variant in ("fp32", "int8"):
        old, new = figures["1.0.0"][variant], figures["1.1.0"][variant]
        assert 0.88 <= old["digits"] <= 0.95
        assert new["digits"] >= 0.97
        assert new["counter_digits"] >= old["counter_digits"] + 0.04
        assert new["counters"] >= old["counters"] + 0.15


def test_int8_reads_nearly_as_well_as_fp32_from_a_smaller_file(figures: dict[str, Any]) -> None:
    for version in ("1.0.0", "1.1.0"):
        fp32, int8 = figures[version]["fp32"], figures[version]["int8"]
        assert abs(fp32["digits"] - int8["digits"]) <= 0.015
        assert int8["size_bytes"] < fp32["size_bytes"] * 0.7


def test_model_json_says_what_the_model_is(built: Path, figures: dict[str, Any]) -> None:
    for version in ("1.0.0", "1.1.0"):
        for variant in ("fp32", "int8"):
            path = built / version / variant / "model.json"
            described = json.loads(path.read_text(encoding="utf-8"))
            assert (described["version"], described["variant"]) == (version, variant)
            measured = figures[version][variant]
            assert described["held_out"]["read_rightly"].items() <= measured.items()


def test_building_again_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    # Another hash seed, so that an order that hangs on it would show.
    build(tmp_path / "again", hash_seed="1")
    one = {path.relative_to(built): path.read_bytes() for path in built.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    other = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert one == other


def test_a_step_is_redone_when_inputs_change_or_an_output_is_touched(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_text("one")
    assert not is_fresh(tmp_path, "step", "inputs")
    write_stamp(tmp_path, "step", "inputs", [made])
    assert is_fresh(tmp_path, "step", "inputs")
    assert not is_fresh(tmp_path, "step", "other inputs")
    made.write_text("two")
    assert not is_fresh(tmp_path, "step", "inputs")


def test_the_release_documents_name_files_that_the_build_makes(built: Path) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        text = (EXAMPLE / f"release-{version}.yaml").read_text(encoding="utf-8")
        sources = re.findall(r"source: build/([^}\s]+)", text)
        assert len(sources) == 5
        for source in sources:
            assert source == "meter-reader.pyz" or (built / source).is_file()
        assert set(re.findall(r"version: ([0-9.]+)", text)) == {version}


def test_the_releases_of_the_image_differ_in_their_model_alone(built: Path) -> None:
    texts: set[str] = set()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        path = EXAMPLE / f"release-image-{version}.yaml"
        documents = parse_documents(path.read_text(encoding="utf-8"), file=path.name)
        assert [kind_of(parsed.document) for parsed in documents] == ["Model", "Application"]
        for source in re.findall(r"source: build/([^}\s]+)", path.read_text(encoding="utf-8")):
            assert (built / source).is_file()
        texts.add(json.dumps(documents[1].raw, sort_keys=True).replace(version, "VERSION"))
    assert len(texts) == 1


def test_an_image_is_laid_out_by_the_rules_and_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF of a kind")
    lower: dict[str, Path | bytes] = {
        "opt/bin/program": tmp_path / "program",
        "etc/passwd": b"root:x:0:0::/:/none\n",
    }
    upper: dict[str, Path | bytes] = {"opt/app/main.py": b"print(1)\n"}
    for name in ("one", "two"):
        write_layout(tmp_path / name, (lower, upper), "amd64")
        (tmp_path / "program").touch()
    blobs = sorted(path.name for path in (tmp_path / "one/blobs/sha256").iterdir())
    assert blobs == sorted(path.name for path in (tmp_path / "two/blobs/sha256").iterdir())
    held = {name: (tmp_path / "one/blobs/sha256" / name).read_bytes() for name in blobs}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in held.items())
    index = json.loads((tmp_path / "one/index.json").read_bytes())
    manifest = json.loads(held[index["manifests"][0]["digest"].removeprefix("sha256:")])
    config = json.loads(held[manifest["config"]["digest"].removeprefix("sha256:")])
    # Layers are not compressed: their digests are what the configuration vouches for.
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
    first = io.BytesIO(held[manifest["layers"][0]["digest"].removeprefix("sha256:")])
    with tarfile.open(fileobj=first) as tar:
        members = [(member.name, member.mode, member.mtime, member.uid) for member in tar]
    assert members == [
        ("etc", 0o755, 0, 0),
        ("etc/passwd", 0o644, 0, 0),
        ("opt", 0o755, 0, 0),
        ("opt/bin", 0o755, 0, 0),
        ("opt/bin/program", 0o755, 0, 0),
    ]
    assert config["config"]["User"] == "10001:10001"
