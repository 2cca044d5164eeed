"""A model's input drifts while the hub is away: the site sees it, the hub after; labels count for the time before."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest

from skerry import sdk
from skerry.spec.api_quality import HostDrift
from skerry.spec.api_telemetry import MetricsAnswer
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = [pytest.mark.e2e, pytest.mark.telemetry]

# A classifier with one threshold, learnt beforehand: it is asked 300 times what it knows, or what it does not.
APP = (
    SERVING
    + """
import json, pathlib, random, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from telling import Predictions

predictions = Predictions()
threshold = float(pathlib.Path(os.environ["MODEL"], "threshold.txt").read_text())
source = random.Random(7)


class Handler(Answering):
    def do_GET(self):
        middle = {"/usual": 10.0, "/strange": 14.0}.get(self.path)
        if middle is not None:
            for number in range(300):
                width = source.gauss(middle, 2.0)
                wide = width > threshold
                predictions.record(
                    f"{self.path}-{number}",
                    label="wide" if wide else "narrow",
                    score=min(0.5 + abs(width - threshold) / 10, 1.0),
                    features={"width": width},
                )
        if self.path == "/judge":
            for number in range(10):
                predictions.label(f"/usual-{number}", "wide")
        if self.path == "/told":
            return self.answer(200, json.dumps([predictions.sent, predictions.dropped, predictions.refused]))
        self.answer(200, "well")


serve(Handler)
"""
)

DOCUMENTS = """
apiVersion: skerry/v1
kind: Model
metadata: {{name: measure}}
spec:
  version: 1.0.0
  variants: [{{name: plain, format: text, files: [{{path: threshold.txt, source: threshold.txt}}]}}]
  reference: {reference}
---
apiVersion: skerry/v1
kind: Application
metadata: {{name: talker}}
spec:
  version: 1.0.0
  components:
    - name: mouth
      bundle: {{files: [{{path: app.py, source: app.py}}, {{path: telling.py, source: telling.py}}]}}
      command: [python3, "${{bundle}}/app.py"]
      env: {{MODEL: "${{model.measure}}"}}
      models: [{{name: measure, version: 1.0.0}}]
      ports: [{{name: http}}]
      probes: {{readiness: {{http: {{port: http, path: /healthz}}, period: 200ms}}}}
      stop: {{grace: 2s}}
"""


def push(fleet: TestFleet) -> None:
    """Push a classifier with the reference that the command makes of what it was judged with."""
    folder = fleet.folder / "release"
    folder.mkdir()
    source = random.Random(1)
    rows = [
        (width, "wide" if width > 11 else "narrow") for width in (source.gauss(10, 2) for _ in range(2000))
    ]
    (folder / "good.csv").write_text("width,class\n" + "\n".join(f"{width},{name}" for width, name in rows))
    made = json.loads(fleet.run("model", "reference", str(folder / "good.csv"), "--json"))
    (folder / "threshold.txt").write_text("11.0")
    (folder / "app.py").write_text(APP)
    (folder / "telling.py").write_text(Path(sdk.__file__).read_text())
    document = folder / "release.yaml"
    document.write_text(DOCUMENTS.format(reference=json.dumps(made["reference"])))
    fleet.run("release", "push", str(document))


@pytest.mark.rule("QUALITY-1")
@pytest.mark.rule("QUALITY-3")
def test_drift_is_seen_at_the_site_without_a_hub_and_at_the_hub_after(fleet: TestFleet) -> None:
    fleet.make_sites("harbour")
    push(fleet)
    agent = fleet.add_agent("harbour", "edge")
    fleet.roll_out("1.0.0")

    def said(path: str) -> str:
        return ask(agent.endpoint("talker", "mouth"), path)

    def log() -> str:
        return f"{said('/told')}\n{agent.log.read_text()[-3000:]}"

    fleet.until(lambda: agent.application("talker").get("phase") == "running" and said("/") == "well", log)
    assert said("/usual") == "well"
    fleet.until(lambda: said("/told") == "[300, 0, 0]", log)
    fleet.hub.stop()
    assert said("/strange") == "well"
    file = agent.data / "quality.json"
    found = fleet.until(lambda: drifted(file, samples=600), log)
    assert set(found) == {"class", "width"}
    assert said("/judge") == "well"
    fleet.until(lambda: said("/told") == "[610, 0, 0]", log)
    fleet.hub.start()
    # An agent that stops stores the minute under way; one that starts hands up what it has.
    agent.stop()
    agent.start()
    query = 'drift_psi{app="talker",feature="width"}'

    def samples(question: str) -> int:
        ran = fleet.try_run("metrics", "query", question, "-o", "json")
        if ran.returncode != 0:
            return 0
        return sum(one.samples for one in msgspec.json.decode(ran.stdout, type=MetricsAnswer).figures)

    # What was told before the hub went may be there already: all of it has to be.
    fleet.until(lambda: samples(query) == 600 and samples('accuracy{app="talker"}') == 10, log)
    answer = fleet.get("metrics", "query", query, "--by", "site")
    (figure,) = answer["figures"]
    assert (figure["group"], figure["samples"]) == ({"site": "harbour"}, 600)
    assert figure["value"] == pytest.approx(found["width"])
    assert (answer["coverage"]["sites"], answer["coverage"]["of"]) == (1, 1)
    (accuracy,) = fleet.get("metrics", "query", 'accuracy{app="talker"}')["figures"]
    assert (accuracy["samples"], 0 < accuracy["value"] < 1) == (10, True)
    shown = fleet.run("explain", "drift", "talker", "--site", "harbour")
    assert "width of measure in talker@1.0.0: drifted; psi" in shown
    assert "600 samples against 2000 of the reference" in shown
    (row,) = fleet.get("top", "models")["rows"]
    assert (row["name"], row["labelled"]) == ("measure of talker@1.0.0", 10)
    assert fleet.until(lambda: "quality.drifted" in fleet.run("get", "events"))


def drifted(file: Path, *, samples: int) -> dict[str, float]:
    """Return what a host found to have drifted, with so many samples each."""
    if not file.exists():
        return {}
    found = msgspec.json.decode(file.read_bytes(), type=HostDrift).features
    views = [view for view in found if view.verdict == "drifted" and view.samples == samples]
    return {view.feature: view.psi for view in views} if len(views) == len(found) else {}
