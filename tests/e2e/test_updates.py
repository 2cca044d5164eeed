"""How updates go on one real host: beside the old release, into running processes, past variants that fail here."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from skerry.reconcile.plan import LEAVE_AFTER_S
from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = pytest.mark.e2e

APP = (
    SERVING
    + """
import json, pathlib, signal, sys

place = pathlib.Path(os.environ["SKERRY_MODEL_MIND"])


def load():
    return json.loads((place / "mind.json").read_text())


if sys.argv[1:2] == ["--self-test"]:
    mind = load()
    for case in sorted(pathlib.Path(sys.argv[2]).glob("*/*/in.json")):
        name = f"{case.parent.parent.name}/{case.parent.name}"
        outputs = [number * mind["factor"] for number in json.loads(case.read_text())]
        print(json.dumps({"case": name, "outputs": outputs, "latency_ms": mind["latency_ms"]}), flush=True)
    sys.exit(0)

mind = load()


def reload(*_):
    global mind
    mind = load()


signal.signal(signal.SIGHUP, reload)


class Handler(Answering):
    def do_POST(self):
        fresh = load()
        if fresh.get("stubborn"):
            self.answer(500)
        else:
            globals()["mind"] = fresh
            self.answer(204)

    def do_GET(self):
        good = mind["well"] or self.path != "/healthz"
        self.answer(200 if good else 503, f"{mind['name']} {os.getpid()}")


serve(Handler)
"""
)

DOCUMENTS = """
apiVersion: skerry/v1
kind: Model
metadata: {{name: mind}}
spec:
  version: {model_version}
  self_test:
    cases:
      - name: twos
        input: {{path: in.json, source: in.json}}
        expected: {{path: out.json, source: out.json}}
    tolerance: {{absolute: 0.1}}
    {max_latency}
  variants: {variants}
---
apiVersion: skerry/v1
kind: Application
metadata: {{name: thinker}}
spec:
  version: {version}
  update: {update}
  components:
    - name: head
      bundle: {{files: [{{path: app.py, source: app.py}}]}}
      command: [python3, "${{bundle}}/app.py"]
      models: [{{name: mind, version: {model_version}, objective: {objective}}}]
      ports: [{{name: http}}]
      {on_change}
      self_test: {{command: [python3, "${{bundle}}/app.py", --self-test, "${{self_test}}"], timeout: 20s}}
      probes:
        startup: {{http: {{port: http, path: /healthz}}, period: 100ms, timeout: 2s, failures: 30}}
        readiness: {{http: {{port: http, path: /healthz}}, period: 300ms}}
      stop: {{grace: 2s}}
"""


class Thinker:
    """Pushes releases of an application whose minds are what a test says."""

    def __init__(self, fleet: TestFleet) -> None:
        self.fleet = fleet
        self.folder = fleet.folder / "thinker"
        fleet.make_site("harbour")
        self.agent: AgentProcess = fleet.add_agent("harbour", "edge")

    def push(self, version: str, *minds: Mapping[str, object], **how: str) -> None:
        """Push a release with one variant for each mind, in this order."""
        (self.folder / version).mkdir(parents=True)
        (self.folder / "app.py").write_text(APP)
        (self.folder / "in.json").write_text("[1, 2]")
        (self.folder / "out.json").write_text("[2, 4]")
        variants: list[dict[str, object]] = []
        for mind in minds or ({"name": version},):
            whole = {"name": version, "factor": 2.0, "latency_ms": 1.5, "well": True, **mind}
            source = Path(version) / f"{whole['name']}.json"
            (self.folder / source).write_text(json.dumps(whole))
            files = [{"path": "mind.json", "source": str(source)}]
            variants.append({"name": str(whole["name"]).replace(".", "-"), "format": "json", "files": files})
        usual = {"update": "auto", "on_change": "", "objective": "listed", "model_version": version}
        usual["max_latency"] = ""
        text = DOCUMENTS.format(version=version, variants=json.dumps(variants), **{**usual, **how})
        path = self.folder / f"{version}.yaml"
        path.write_text(text)
        self.fleet.run("release", "push", str(path))

    def roll_out(self, version: str) -> str:
        """Roll a release out and return how the rollout ended."""
        name = f"to-{version.replace('.', '-')}"
        gate = ("--soak", "300ms", "--deadline", "20s")
        self.fleet.run("rollout", "start", f"thinker@{version}", "--sites", "*", "--name", name, *gate)
        return self.fleet.until(
            lambda: state if (state := self.fleet.rollout_state(name)) in ("succeeded", "failed") else "",
            lambda: f"{self.agent.status()}\n{self.agent.log.read_text()[-3000:]}",
        )

    def says(self) -> list[str]:
        """Return who answers: the mind's name and the process."""
        return ask(self.agent.endpoint("thinker", "head")).split()

    @contextmanager
    def nobody_is_turned_away(self) -> Generator[list[str]]:
        """Ask all the while; whoever is shown as the endpoint must answer. Yields the names that did."""
        names: list[str] = []
        silences: list[str] = []
        over = threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                endpoint = self.agent.endpoint("thinker", "head")
                said = ask(endpoint)
                # An endpoint that was shown an instant ago may have gone with its release: ask where it is now.
                said = said or ask(self.agent.endpoint("thinker", "head"))
                (names if said else silences).append(said.split()[0] if said else endpoint)

        asker = threading.Thread(target=keep_asking)
        asker.start()
        try:
            yield names
        finally:
            over.set()
            asker.join()
        assert not silences, f"{len(silences)} of {len(silences) + len(names)} requests were not answered"


@pytest.fixture
def thinker(fleet: TestFleet) -> Thinker:
    """A site with one host, and nothing on it."""
    return Thinker(fleet)


def test_a_release_with_another_model_alone_runs_beside_the_old_one_until_it_is_proven(
    thinker: Thinker,
) -> None:
    thinker.push("1.0.0")
    assert thinker.roll_out("1.0.0") == "succeeded"
    first = thinker.says()
    thinker.push("1.1.0")
    with thinker.nobody_is_turned_away() as names:
        assert thinker.roll_out("1.1.0") == "succeeded"
        thinker.fleet.until(lambda: thinker.says()[:1] == ["1.1.0"])
    assert set(names) == {"1.0.0", "1.1.0"}
    assert thinker.says()[1] != first[1]


@pytest.mark.rule("HOST-8")
def test_who_asks_now_and_then_where_to_go_loses_none_of_thousands_of_requests_in_a_switch(
    thinker: Thinker,
) -> None:
    thinker.push("1.0.0")
    assert thinker.roll_out("1.0.0") == "succeeded"
    thinker.push("1.1.0")
    old = thinker.agent.endpoint("thinker", "head")
    asked, over = Counter[str](), threading.Event()

    def keep_asking() -> None:
        # Whoever looks up this often goes at the worst by what was shown so long ago.
        shown = deque([(time.monotonic(), old)])
        while not over.is_set():
            now = time.monotonic()
            if now >= shown[-1][0] + 0.1:
                shown.append((now, thinker.agent.endpoint("thinker", "head")))
            while len(shown) > 1 and now >= shown[1][0] + LEAVE_AFTER_S / 2:
                shown.popleft()
            said = ask(shown[0][1])
            asked[said.split()[0] if said else "nobody"] += 1

    asker = threading.Thread(target=keep_asking)
    asker.start()
    try:
        assert thinker.roll_out("1.1.0") == "succeeded"
        thinker.fleet.until(lambda: not ask(old) and asked.total() >= 5000)
    finally:
        over.set()
        asker.join()
    assert asked["nobody"] == 0, f"of {asked.total()} requests so many were not answered"
    assert asked.keys() == {"1.0.0", "1.1.0"}, "both served meanwhile"


@pytest.mark.rule("HOST-5")
def test_a_variant_that_is_too_slow_here_is_passed_over_before_it_serves(thinker: Thinker) -> None:
    minds = ({"name": "slow", "latency_ms": 80.0}, {"name": "swift", "latency_ms": 4.0})
    thinker.push("1.0.0", *minds, max_latency="max_latency: 20ms")
    assert thinker.roll_out("1.0.0") == "succeeded"
    assert thinker.says()[0] == "swift"
    view = thinker.fleet.get("get", "hosts", "edge")["applications"]["thinker"]
    why = "an answer takes 80 ms, and may take 20 ms at the most"
    assert view["failed_variants"]["mind@1.0.0/slow"] == why


@pytest.mark.rule("HOST-6")
@pytest.mark.parametrize(
    "on_change", ("on_change: {signal: HUP}", "on_change: {http: {port: http, path: /reload}}")
)
def test_a_component_takes_a_new_model_without_a_restart_and_gives_back_one_that_is_bad(
    thinker: Thinker, on_change: str
) -> None:
    thinker.push("1.0.0", on_change=on_change)
    assert thinker.roll_out("1.0.0") == "succeeded"
    first = thinker.says()
    assert first[0] == "1.0.0"

    thinker.push("1.1.0", on_change=on_change)
    with thinker.nobody_is_turned_away():
        assert thinker.roll_out("1.1.0") == "succeeded"
        assert thinker.fleet.until(lambda: said if (said := thinker.says())[:1] == ["1.1.0"] else []) == [
            "1.1.0",
            first[1],
        ]

    thinker.push("1.2.0", {"name": "ill", "well": False}, on_change=on_change)
    assert thinker.roll_out("1.2.0") == "failed"
    assert thinker.fleet.until(lambda: said if (said := thinker.says())[:1] == ["1.1.0"] else []) == [
        "1.1.0",
        first[1],
    ]
    assert "startup probe failed" in json.dumps(thinker.agent.application("thinker")["refused"])

    # After a reboot it comes up with the model that was good, and takes the next one as before.
    thinker.agent.kill()
    thinker.agent.start()
    thinker.push("1.3.0", on_change=on_change)
    assert thinker.roll_out("1.3.0") == "succeeded"
    assert thinker.says() == ["1.3.0", first[1]]


@pytest.mark.rule("HOST-6")
def test_a_component_that_answers_no_to_a_new_model_keeps_the_old_one(thinker: Thinker) -> None:
    on_change = "on_change: {http: {port: http, path: /reload}}"
    thinker.push("1.0.0", on_change=on_change)
    assert thinker.roll_out("1.0.0") == "succeeded"
    first = thinker.says()
    thinker.push("1.1.0", {"name": "odd", "stubborn": True}, on_change=on_change)
    assert thinker.roll_out("1.1.0") == "failed"
    assert "HTTP 500" in json.dumps(thinker.agent.application("thinker")["refused"])
    thinker.fleet.until(lambda: thinker.agent.application("thinker")["phase"] == "running")
    assert thinker.says() == first


@pytest.mark.rule("HOST-5")
def test_a_variant_that_fails_its_self_test_is_passed_over_for_the_next_best(thinker: Thinker) -> None:
    minds = ({"name": "sharp", "factor": 3.0}, {"name": "blunt", "factor": 2.01, "latency_ms": 7.25})
    thinker.push("1.0.0", *minds)
    assert thinker.roll_out("1.0.0") == "succeeded"
    assert thinker.says()[0] == "blunt"
    view = thinker.fleet.get("get", "hosts", "edge")["applications"]["thinker"]
    assert "twos: output[0] is 3, expected 2" in view["failed_variants"]["mind@1.0.0/sharp"]
    assert any("sharp" in line and "self-test" in line for line in view["choices"][0]["why"])

    def measured() -> int | None:
        facts = thinker.fleet.get("get", "hosts", "edge")["facts"]
        found: int | None = facts.get("measured.mind@1.0.0/blunt.latency_us", {}).get("value")
        return found

    thinker.fleet.until(lambda: measured() is not None)
    assert measured() == 7250

    # It is remembered over restarts, and known before anything is fetched again.
    thinker.agent.kill()
    thinker.agent.start()
    thinker.fleet.until(lambda: thinker.says()[:1] == ["blunt"])


@pytest.mark.rule("HOST-5")
def test_when_no_variant_passes_its_self_test_the_release_is_refused_and_nothing_was_stopped(
    thinker: Thinker,
) -> None:
    thinker.push("1.0.0")
    assert thinker.roll_out("1.0.0") == "succeeded"
    first = thinker.says()
    thinker.push("1.1.0", {"name": "sharp", "factor": 3.0}, {"name": "wild", "factor": 9.0})
    with thinker.nobody_is_turned_away():
        assert thinker.roll_out("1.1.0") == "failed"
    assert thinker.says() == first
    refused = json.dumps(thinker.agent.application("thinker")["refused"])
    assert "sharp" in refused and "wild" in refused


def test_what_was_measured_on_the_host_decides_which_variant_is_the_fastest(thinker: Thinker) -> None:
    minds = ({"name": "first", "latency_ms": 9.0}, {"name": "second", "latency_ms": 3.0})
    thinker.push("1.0.0", *minds, objective="fastest", model_version="v7")
    assert thinker.roll_out("1.0.0") == "succeeded"
    assert thinker.says()[0] == "first", "with nothing measured or declared, the author's order counts"

    measured = thinker.fleet.get("agent", "measure", "thinker", "--data", str(thinker.agent.data))
    assert {one["variant"]: one["latency_us"] for one in measured["variants"]} == {
        "mind@v7/first": 9000,
        "mind@v7/second": 3000,
    }
    thinker.push("1.1.0", *minds, objective="fastest", model_version="v7")
    assert thinker.roll_out("1.1.0") == "succeeded"
    assert thinker.fleet.until(lambda: said if (said := thinker.says())[:1] == ["second"] else [])
    nothing = thinker.fleet.try_run("agent", "measure", "nobody", "--data", str(thinker.agent.data))
    assert "nobody does not run here" in nothing.stderr
