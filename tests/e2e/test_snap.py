"""Snapped weights on a real hub: pushed when the publisher's evaluation allows, run by a host like any others."""

from __future__ import annotations

import array
import json
import sys
from pathlib import Path
from random import Random

import pytest

from tests.e2e.conftest import TestFleet
from tests.e2e.releases import APP

pytestmark = pytest.mark.e2e

EVALUATE = """
import array, json, os, pathlib, sys

held = pathlib.Path(os.environ["SKERRY_MODEL_DIR"], "w.safetensors").read_bytes()
wanted = pathlib.Path(sys.argv[1]).read_bytes()
got, right = (array.array("f", content[8 + int.from_bytes(content[:8], "little"):]) for content in (held, wanted))
print(json.dumps({"metrics": {"error": max(abs(a - b) for a, b in zip(got, right))}}))
"""

DOCUMENTS = """
kind: Model
metadata: {{name: mind}}
spec:
  version: {version}
  evaluation:
    command: [{python}, evaluate.py, {version}.safetensors]
    metrics: {{error: {{worse_by: {worse_by}, better: lower}}}}
  variants:
    - name: small
      format: safetensors
      files: [{{path: mind.txt, source: mind.txt}}, {{path: w.safetensors, source: {version}.safetensors}}]
---
kind: Application
metadata: {{name: talker}}
spec:
  version: {version}
  components:
    - name: mouth
      bundle: {{files: [{{path: app.py, source: app.py}}]}}
      command: [python3, "${{bundle}}/app.py"]
      models: [{{name: mind, version: {version}}}]
      ports: [{{name: http}}]
      probes: {{readiness: {{http: {{port: http, path: /healthz}}, period: 200ms}}}}
"""


def write(folder: Path, version: str, weights: list[float], *, worse_by: float) -> str:
    folder.mkdir(exist_ok=True)
    content = array.array("f", weights).tobytes()
    header = json.dumps({"w": {"dtype": "F32", "shape": [len(weights)], "data_offsets": [0, len(content)]}})
    whole = len(header).to_bytes(8, "little") + header.encode() + content
    (folder / f"{version}.safetensors").write_bytes(whole)
    (folder / "mind.txt").write_text("well small\n")
    (folder / "app.py").write_text(APP)
    (folder / "evaluate.py").write_text(EVALUATE)
    path = folder / f"release-{version}.yaml"
    path.write_text(DOCUMENTS.format(version=version, worse_by=worse_by, python=sys.executable))
    return str(path)


def test_a_model_is_snapped_as_far_as_its_evaluation_allows_and_then_runs(fleet: TestFleet) -> None:
    random, folder = Random(3), fleet.folder / "release"
    first = [random.gauss(0, 0.05) for _ in range(20_000)]
    second = [weight * random.gauss(1, 0.02) for weight in first]
    third = [weight * random.gauss(1, 0.02) for weight in second]
    fleet.run("release", "push", write(folder, "1.0.0", first, worse_by=0), "--snap")

    good = write(folder, "1.1.0", second, worse_by=0.002)
    planned = fleet.get("release", "push", good, "--snap", "--dry-run")
    (variant,) = planned["snapping"]["variants"]
    assert (planned["snapping"]["release"], variant["bits"]) == ("talker@1.0.0", 14)
    (file,) = variant["files"]
    assert file["snapped_delta_bytes"] < file["exact_delta_bytes"] < file["full_bytes"]
    assert "mind/small: snapped to talker@1.0.0 by 14 bits" in fleet.run("release", "push", good, "--snap")
    told = fleet.run("describe", "release", "talker@1.1.0")
    assert "snapped to talker@1.0.0 by 14 bits" in told
    assert planned["digest"] in told, "a dry run is the real thing"

    bad = write(folder, "1.2.0", third, worse_by=0)
    refused = fleet.try_run("release", "push", bad, "--snap-bits", "14")
    assert refused.returncode == 2
    assert "snapped by 14 bits does not pass: error went from 0 to" in refused.stderr
    assert "mind/small: stays exact: no number of bits passes" in fleet.run("release", "push", bad, "--snap")
    assert "snapped" not in fleet.run("describe", "release", "talker@1.2.0")

    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge-a")
    fleet.roll_out("1.1.0")
    fleet.until_runs(agent, "1.1.0")
