"""`skerry model reference`: from predictions of when a model was good to what is compared with."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from skerry.cli.invocation import Invocation
from skerry.cli.model import model
from skerry.client.model_reference import make_reference
from skerry.kit.errors import Missing, SkerryError
from skerry.spec.checks_quality import check_reference
from skerry.spec.quality import Reference

ROWS = [
    {"width": number % 40 + 0.5, "line": "north" if number % 4 else "south", "class": number % 2}
    for number in range(400)
]


def csv_file(folder: Path) -> Path:
    file = folder / "good.csv"
    lines = ["width (mm),line,class,empty"]
    lines += [f"{row['width']},{row['line']},{row['class']}," for row in ROWS]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_table_becomes_a_reference_that_is_sound(tmp_path: Path) -> None:
    made = make_reference(csv_file(tmp_path))
    assert list(check_reference("r", made)) == []
    assert set(made.features) == {"width__mm_", "line", "class"}
    assert made.features["line"].classes == {"north": 300, "south": 100}
    assert made.features["class"].classes == {"0": 200, "1": 200}
    width = made.features["width__mm_"]
    assert (width.total, 10 <= len(width.edges) <= 19) == (400, True)


def test_lines_of_json_are_read_as_well_and_columns_are_chosen(tmp_path: Path) -> None:
    file = tmp_path / "good.jsonl"
    file.write_text("\n".join(json.dumps({**row, "id": f"part {n}"}) for n, row in enumerate(ROWS)) + "\n\n")
    made = make_reference(file, columns=["width", "class"], classes=["class"], bins=4)
    assert len(made.features["width"].edges) == 3
    with pytest.raises(SkerryError, match="600 different"):
        make_reference(_unique(tmp_path))
    with pytest.raises(Missing, match="no column height"):
        make_reference(file, columns=["height"])


def _unique(folder: Path) -> Path:
    file = folder / "unique.csv"
    file.write_text("id\n" + "\n".join(f"part {number}" for number in range(600)))
    return file


@pytest.mark.parametrize(
    ("name", "content"),
    (
        ("a.csv", b""),
        ("a.csv", b"a,b\n"),
        ("a.csv", b"score\nhigh\n"),
        ("a.csv", b"\xff\xfe\n\x00\n"),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b"{"),
        ("a.jsonl", b"[" * 100_000),
    ),
)
def test_what_no_reference_can_be_made_of_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SkerryError):
        make_reference(file)


def test_the_command_writes_what_goes_under_spec(tmp_path: Path) -> None:
    file, output = csv_file(tmp_path), tmp_path / "reference.yaml"
    ran = CliRunner().invoke(model, ["reference", str(file), "-o", str(output)], obj=Invocation())
    assert ran.exit_code == 0, ran.output
    assert ran.stderr == f"{output}: 3 features, 400 samples\n"
    said = yaml.safe_load(output.read_text())
    assert msgspec.convert(said["reference"], type=Reference) == make_reference(file)
    printed = CliRunner().invoke(model, ["reference", str(file), "--json"], obj=Invocation())
    assert msgspec.convert(json.loads(printed.stdout)["reference"], type=Reference) == make_reference(file)
