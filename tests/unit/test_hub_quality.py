"""The hub tells accuracy, calibration and drift from counts that hosts hand up, with coverage and ages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.sqlite_predictions import SqlitePredictions
from skerry.agent.predicting import Predicting, Running
from skerry.agent.pushing import Source
from skerry.cli.explain_drift import drift_lines
from skerry.hub.telemetry_quality import QualityQueries
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected
from skerry.spec.api_telemetry import MetricsAnswer
from skerry.telemetry.derived import parse_derived
from tests.contract.hub_records import release as release_record
from tests.unit.test_hub_backend import Harbour
from tests.unit.test_hub_telemetry import DAY_S, HOUR_S, Measuring, measuring
from tests.unit.test_quality_service import REFERENCE, release

SOURCE = Source("reader", "main", "reader@1.0.0")


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


class Site:
    """A host of a site whose model answers."""

    def __init__(self, harbour: Harbour, host: Measuring, folder: Path) -> None:
        self.harbour = harbour
        self.host = host
        self.store = SqlitePredictions.open(folder / "predictions.db")
        self.predicting = Predicting(self.store, host.recorder, harbour.clock.now, lambda _: None)
        self.predicting.running = {SOURCE: Running("reader@1.0.0", {"ocr": "int8"}, {"ocr": REFERENCE})}

    def say(self, *predictions: dict[str, Any], labels: dict[str, str] | None = None) -> None:
        found = [{"id": key, "truth": truth} for key, truth in (labels or {}).items()]
        body = msgspec.json.encode({"batch": "", "predictions": list(predictions), "labels": found})
        self.predicting.take(SOURCE, body)

    def see(self, many: int, width: float) -> None:
        self.say(
            *(
                {"label": "ok" if number % 10 else "bad", "features": {"width": width + number % 100}}
                for number in range(many)
            )
        )


async def site(harbour: Harbour, folder: Path, name: str = "harbour") -> Site:
    (folder / name).mkdir()
    return Site(harbour, await measuring(harbour, f"edge-{name}", name), folder / name)


def pushed(harbour: Harbour) -> None:
    """Have the hub know the release and so its model's reference."""
    content = encode_canonical(release("1.0.0"))
    harbour.store.add_release(release_record("1.0.0", content=content, application="reader"), harbour.audit())


def queries(harbour: Harbour) -> QualityQueries:
    return QualityQueries(harbour.store, harbour.hub.clock, harbour.store.sites())


def ask(harbour: Harbour, query: str, by: str = "", since_s: float = HOUR_S) -> MetricsAnswer:
    return queries(harbour).query(query, [name for name in by.split(",") if name], since_s)


def values(
    harbour: Harbour, query: str, by: str = "", since_s: float = HOUR_S
) -> dict[tuple[str, ...], float | None]:
    return {
        tuple(one.group.values()): None if one.value is None else round(one.value, 6)
        for one in ask(harbour, query, by, since_s).figures
    }


LABELS = {"1": "ok", "2": "bad", "3": "ok", "4": "bad"}


def four() -> list[dict[str, Any]]:
    """Four answers, of which 1, 3 and 4 are right."""
    return [
        {"id": "1", "label": "ok", "score": 0.9},
        {"id": "2", "label": "ok", "score": 0.8},
        {"id": "3", "label": "ok", "score": 0.9},
        {"id": "4", "label": "bad", "score": 0.5},
    ]


async def test_accuracy_precision_recall_and_calibration_are_those_of_all_counts(
    harbour: Harbour, tmp_path: Path
) -> None:
    one, other = await site(harbour, tmp_path), await site(harbour, tmp_path, "airport")
    one.say(*four(), labels=LABELS)
    other.say({"id": "1", "label": "ok", "score": 0.9}, labels={"1": "ok"})
    await one.host.tell(times=2)
    await other.host.tell(times=2)
    assert values(harbour, 'accuracy{app="reader"}') == {(): 0.8}
    assert values(harbour, "accuracy", "site") == {("harbour",): 0.75, ("airport",): 1.0}
    assert values(harbour, "precision", "class") == {("ok",): 0.75, ("bad",): 1.0}
    assert values(harbour, 'recall{site="harbour"}', "class") == {("ok",): 1.0, ("bad",): 0.5}
    assert values(harbour, 'recall{class="bad"}') == {(): 0.5}
    # Of tenths: 0.9 three right of 2.7; 0.8 none right of 0.8; 0.5 one right of 0.5.
    assert values(harbour, "calibration_error") == {(): round((0.3 + 0.8 + 0.5) / 5, 6)}
    answer = ask(harbour, "accuracy", "site")
    assert (answer.stat, answer.coverage.sites, answer.coverage.of) == ("accuracy", 2, 2)
    assert [figure.samples for figure in answer.figures] == [1, 4]
    with pytest.raises(Rejected) as raised:
        ask(harbour, "precision")
    assert raised.value.code == "query.class"


@pytest.mark.rule("QUALITY-3")
@pytest.mark.rule("QUALITY-1")
async def test_labels_of_days_later_change_the_accuracy_of_the_right_past_window(
    harbour: Harbour, tmp_path: Path
) -> None:
    one = await site(harbour, tmp_path)
    one.say(*four(), labels={"1": "ok"})
    await one.host.tell(times=2)
    harbour.clock.advance(3 * DAY_S)
    one.say({"id": "new", "label": "ok"}, labels={"new": "bad"})
    await one.host.tell(times=2)
    before = ask(harbour, "accuracy", since_s=4 * DAY_S).figures[0]
    assert (before.value, before.samples) == (0.5, 2)
    # The truth of three days ago comes only now, and twice.
    for _ in range(2):
        one.say(labels=LABELS)
        await one.host.tell(times=2)
    whole = ask(harbour, "accuracy", since_s=4 * DAY_S).figures[0]
    assert (whole.value, whole.samples) == (3 / 5, 5)
    assert values(harbour, "accuracy", since_s=DAY_S) == {(): 0.0}


async def test_drift_is_told_of_merged_sites_with_its_counts_and_of_each(
    harbour: Harbour, tmp_path: Path
) -> None:
    pushed(harbour)
    one, other = await site(harbour, tmp_path), await site(harbour, tmp_path, "airport")
    one.see(1000, 1.0)
    other.see(1000, 61.0)
    await one.host.tell(times=2)
    await other.host.tell(times=2)
    by_site = values(harbour, 'drift_psi{app="reader",feature="width"}', "site")
    assert by_site["harbour",] == 0.0
    assert (by_site["airport",] or 0) > 1
    assert values(harbour, "drift_js", "feature") == {("class",): 0.0}
    both = values(harbour, "drift_ks", "feature")
    assert both["width",] == pytest.approx(0.3, abs=0.03)
    # Of several features the largest.
    assert values(harbour, "drift_psi", "site") == by_site
    answer = queries(harbour).drift("reader", DAY_S)
    assert [(view.feature, view.verdict, view.samples) for view in answer.features] == [
        ("class", "steady", 2000),
        ("width", "drifted", 2000),
    ]
    lines = list(drift_lines(answer))
    assert lines[0] == "class of ocr in reader@1.0.0: as in its reference; every distance is below its limit"
    assert any("width of ocr in reader@1.0.0: drifted; psi" in line for line in lines)
    assert "2000 samples against 1000 of the reference" in "\n".join(lines)
    assert lines[-2].startswith("coverage: 2 of ")


@pytest.mark.rule("QUALITY-2")
async def test_with_few_samples_there_is_no_value_but_their_number(harbour: Harbour, tmp_path: Path) -> None:
    pushed(harbour)
    one = await site(harbour, tmp_path)
    one.see(150, 500.0)
    await one.host.tell()
    (figure,) = ask(harbour, 'drift_psi{feature="width"}').figures
    assert (figure.value, figure.samples) == (None, 150)
    assert {view.verdict for view in queries(harbour).drift("reader", DAY_S).features} == {"few-samples"}
    # Those of two sites together are enough.
    other = await site(harbour, tmp_path, "airport")
    other.see(150, 500.0)
    await other.host.tell()
    assert (values(harbour, 'drift_psi{feature="width"}')[()] or 0) > 1


async def test_without_a_reference_that_is_said(harbour: Harbour, tmp_path: Path) -> None:
    one = await site(harbour, tmp_path)
    one.see(300, 1.0)
    await one.host.tell()
    with pytest.raises(Rejected) as raised:
        ask(harbour, "drift_psi")
    assert (raised.value.code, raised.value.message) == (
        "query.no_reference",
        "no reference to compare with: ocr of reader@1.0.0",
    )
    answer = queries(harbour).drift("reader", DAY_S)
    assert answer.features == ()
    assert next(drift_lines(answer)).startswith("Nothing of reader can be compared")
    assert queries(harbour).drift("nobody", DAY_S).coverage.sites == 0


async def test_the_models_that_predict_most_come_first(harbour: Harbour, tmp_path: Path) -> None:
    pushed(harbour)
    one = await site(harbour, tmp_path)
    one.see(1000, 61.0)
    one.say(*four(), labels=LABELS)
    one.predicting.running = {SOURCE: Running("reader@2.0.0", {"ocr": "int8"})}
    one.say({"label": "ok"})
    await one.host.tell()
    answer = queries(harbour).top_models(HOUR_S)
    assert [(row.name, row.predictions, row.labelled, row.accuracy) for row in answer.rows] == [
        ("ocr of reader@1.0.0", 1004, 4, 0.75),
        ("ocr of reader@2.0.0", 1, 0, None),
    ]
    assert (answer.rows[0].drift_psi or 0) > 1
    assert answer.rows[1].drift_psi is None
    assert (answer.coverage.sites, answer.rows[0].sites) == (1, 1)


def test_a_series_that_is_called_so_goes_before_what_is_derived() -> None:
    assert parse_derived("accuracy", ["accuracy"]) is None
    assert parse_derived("latency_p95", []) is None
    found = parse_derived('accuracy{app="reader"}', [])
    assert found is not None
    assert found.selector.matchers[0].value == "reader"
    with pytest.raises(Rejected):
        parse_derived("accuracy{", [])
