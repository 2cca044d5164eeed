"""The example's application, driven through its ASGI face: it reads rightly, and no input makes it fall over."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.meter_reader.building import need_libraries

need_libraries()

import numpy as np  # noqa: E402  skipped first where it is missing
from build_tools.counters import compose_held_out, encode_png  # noqa: E402
from build_tools.digits import load_split  # noqa: E402
from meter_reader.model import DigitModel, ModelRefusedError, load_model  # noqa: E402
from meter_reader.picture import BadPictureError, check_size, split_digits  # noqa: E402
from meter_reader.web import MAX_BODY_BYTES, Message, MeterReader  # noqa: E402

PNG = "image/png"
RAW = "application/octet-stream"


@dataclass(frozen=True)
class Reply:
    """What came back for one request."""

    status: int
    media_type: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(app: MeterReader, method: str, target: str, body: bytes = b"", media_type: str = PNG) -> Reply:
    """Send one request through the application's ASGI face, its body in two parts."""
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"content-type", media_type.encode())],
    }
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    headers = dict(sent[0]["headers"])
    assert int(headers[b"content-length"]) == len(sent[1]["body"])
    return Reply(sent[0]["status"], headers[b"content-type"].decode(), sent[1]["body"])


@pytest.fixture
def app(built: Path) -> MeterReader:
    return MeterReader(load_model(built / "1.1.0" / "fp32"))


def refused(directory: Path) -> ModelRefusedError:
    with pytest.raises(ModelRefusedError) as caught:
        load_model(directory)
    return caught.value


# --- a model that must not be used -----------------------------------------------------------------------


@pytest.mark.parametrize("variant", ("fp32", "int8"))
def test_the_broken_release_starts_and_fails_its_health_probe(built: Path, variant: str) -> None:
    app = MeterReader(refused(built / "1.2.0" / variant))
    reply = ask(app, "GET", "/healthz")
    assert reply.status == 503
    assert reply.json() == {
        "status": "failing",
        "reason": "output 'scores' has shape [10, 8], wanted [10, 10]",
    }
    assert ask(app, "POST", "/infer", b"x").status == 503
    assert 'meter_reader_errors_total{kind="not_ready"} 1' in ask(app, "GET", "/metrics").body.decode()


def test_asked_to_reload_it_takes_a_good_model_and_keeps_the_one_in_use_when_the_new_one_is_refused(
    built: Path, counter_png: bytes
) -> None:
    found: list[DigitModel | ModelRefusedError] = [
        refused(built / "1.2.0" / "fp32"),
        load_model(built / "1.1.0" / "fp32"),
    ]
    app = MeterReader(load_model(built / "1.0.0" / "fp32"), lambda: found.pop(0))
    reply = ask(app, "POST", "/reload")
    assert reply.status == 409
    assert "wanted [10, 10]" in reply.json()["detail"]
    assert ask(app, "GET", "/healthz").json()["model"]["version"] == "1.0.0"
    assert ask(app, "POST", "/reload").status == 204
    assert ask(app, "GET", "/healthz").json()["model"]["version"] == "1.1.0"
    assert ask(MeterReader(load_model(built / "1.0.0" / "fp32")), "POST", "/reload").status == 404
    assert ask(app, "GET", "/reload").status == 405


def test_a_model_that_misreads_known_digits_is_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "1.1.0" / "fp32", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["self_check"]["digits"] = "9876543210"
    path.write_text(json.dumps(description), encoding="utf-8")
    assert "self-check read 0123456789" in str(refused(tmp_path / "model"))


def test_a_damaged_or_missing_file_is_refused_with_its_name(built: Path, tmp_path: Path) -> None:
    assert "model.json" in str(refused(tmp_path))
    shutil.copytree(built / "1.1.0" / "int8", tmp_path / "model")
    graph = tmp_path / "model" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    assert "model.onnx" in str(refused(tmp_path / "model"))
    (tmp_path / "model" / "model.json").write_text("[]")
    assert "model.json" in str(refused(tmp_path / "model"))


# --- the application -------------------------------------------------------------------------------------


def test_counters_are_read_over_http_as_well_as_the_report_says(
    built: Path, app: MeterReader, truth: list[dict[str, Any]], figures: dict[str, Any]
) -> None:
    right = 0
    for counter in truth:
        reply = ask(app, "POST", "/infer", (built / "counters" / counter["file"]).read_bytes())
        answer = reply.json()
        assert reply.status == 200
        assert answer["model"] == {"version": "1.1.0", "variant": "fp32"}
        assert len(answer["digits"]) == len(answer["scores"]) == 5
        assert all(0.1 <= score <= 1 for score in answer["scores"])
        right += answer["digits"] == counter["digits"]
    assert right / len(truth) == pytest.approx(figures["1.1.0"]["fp32"]["counters"], abs=1e-4)
    assert right / len(truth) >= 0.8


def test_raw_pixels_read_like_the_png_of_them(app: MeterReader) -> None:
    picture = compose_held_out(load_split().held_out)[3].picture
    height, width = picture.shape
    raw = ask(app, "POST", f"/infer?width={width}&height={height}", picture.tobytes(), RAW)
    assert raw.json() == ask(app, "POST", "/infer", encode_png(picture)).json()


def test_a_picture_twice_as_large_reads_the_same(app: MeterReader) -> None:
    picture = compose_held_out(load_split().held_out)[0].picture
    larger = picture.repeat(2, axis=0).repeat(2, axis=1)
    first = ask(app, "POST", "/infer", encode_png(picture)).json()["digits"]
    assert ask(app, "POST", "/infer", encode_png(larger)).json()["digits"] == first


@pytest.mark.parametrize(
    ("body", "media_type", "target", "status", "words"),
    (
        (b"", PNG, "/infer", 400, "no readable PNG"),
        (b"\x89PNG\r\n\x1a\nrubbish", PNG, "/infer", 400, "no readable PNG"),
        (b"GIF89a" + bytes(50), PNG, "/infer", 400, "no readable PNG"),
        (b"12", RAW, "/infer?width=40&height=8", 400, "320 bytes"),
        (bytes(64), RAW, "/infer", 400, "width"),
        (bytes(64), RAW, "/infer?width=8&height=-8", 400, "height"),
        (bytes(64), RAW, "/infer?width=8&height=" + "9" * 5000, 400, "height"),
        (bytes(64), RAW, "/infer?width=0&height=0", 400, "pixels high"),
        (bytes(96), RAW, "/infer?width=12&height=8", 400, "whole number"),
        (b"{}", "application/json", "/infer", 415, "content-type"),
        (bytes(MAX_BODY_BYTES + 1), PNG, "/infer", 413, "at most"),
    ),
)
def test_bad_input_is_answered_with_a_problem(
    app: MeterReader, body: bytes, media_type: str, target: str, status: int, words: str
) -> None:
    reply = ask(app, "POST", target, body, media_type)
    assert (reply.status, reply.media_type) == (status, "application/problem+json")
    assert reply.json()["status"] == status
    assert words in reply.json()["detail"]
    assert 'meter_reader_errors_total{kind="bad_request"} 1' in ask(app, "GET", "/metrics").body.decode()


def test_every_cut_off_png_is_refused_not_crashed_on(app: MeterReader, counter_png: bytes) -> None:
    for length in range(0, len(counter_png) - 12, 97):
        assert ask(app, "POST", "/infer", counter_png[:length]).status == 400


def test_a_huge_picture_is_refused_before_it_is_decoded(app: MeterReader) -> None:
    reply = ask(app, "POST", "/infer", encode_png(np.zeros((4000, 4000), dtype=np.uint8)))
    assert reply.status == 400
    assert "pixels high" in reply.json()["detail"]


def test_only_the_known_paths_and_methods_are_served(app: MeterReader) -> None:
    assert ask(app, "GET", "/").status == 404
    assert ask(app, "GET", "/infer").status == 405
    assert ask(app, "POST", "/healthz").status == 405
    assert ask(app, "GET", "/healthz").json() == {
        "status": "ok",
        "model": {"version": "1.1.0", "variant": "fp32"},
    }


def test_metrics_are_well_formed_and_count_what_happened(app: MeterReader, counter_png: bytes) -> None:
    for _ in range(3):
        ask(app, "POST", "/infer", counter_png)
    ask(app, "POST", "/infer", b"")
    reply = ask(app, "GET", "/metrics")
    assert reply.media_type.startswith("text/plain; version=0.0.4")
    samples = parse_metrics(reply.body.decode())
    assert samples['meter_reader_model_info{version="1.1.0",variant="fp32"}'] == 1
    assert samples['meter_reader_requests_total{code="200"}'] == 3
    assert samples['meter_reader_requests_total{code="400"}'] == 1
    assert samples['meter_reader_errors_total{kind="bad_request"}'] == 1
    assert samples["meter_reader_latency_seconds_count"] == 3
    assert samples["meter_reader_score_count"] == 15
    assert samples['meter_reader_score_bucket{le="1"}'] == 15
    assert 0 < samples["meter_reader_score_sum"] <= 15
    for name in ("meter_reader_latency_seconds", "meter_reader_score"):
        buckets = [value for key, value in samples.items() if key.startswith(name + "_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == samples[name + "_count"]


def parse_metrics(text: str) -> dict[str, float]:
    """Read the text format strictly: every sample's family is declared before it, and none is named twice."""
    assert text.endswith("\n")
    families: set[str] = set()
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            families.add(line.split()[2])
        elif not line.startswith("# HELP "):
            matched = re.fullmatch(
                r"([a-z_]+)((?:\{[a-z]+=\"[^\"]*\"(?:,[a-z]+=\"[^\"]*\")*\})?) ([0-9.e+-]+)", line
            )
            assert matched, line
            family = re.sub(r"_(bucket|sum|count)$", "", matched[1])
            assert {matched[1], family} & families
            assert matched[1] + matched[2] not in samples
            samples[matched[1] + matched[2]] = float(matched[3])
    return samples


@pytest.mark.parametrize(("width", "height", "count"), ((160, 32, 5), (8, 8, 1), (161, 32, 5), (512, 32, 16)))
def test_the_number_of_digits_follows_from_the_shape(width: int, height: int, count: int) -> None:
    assert check_size(width, height) == count
    assert split_digits(np.zeros((height, width), dtype=np.uint8)).shape == (count, 1, 8, 8)


def test_a_full_white_picture_has_full_ink() -> None:
    digits = split_digits(np.full((32, 64), 255, dtype=np.uint8))
    assert digits.min() == digits.max() == pytest.approx(16)


def test_a_shape_no_counter_has_is_refused() -> None:
    for width, height in [(10, 32), (600, 32), (160, 4), (6000, 600), (48, 32)]:
        with pytest.raises(BadPictureError):
            check_size(width, height)


def test_a_loaded_model_knows_its_version(built: Path) -> None:
    model = load_model(built / "1.0.0" / "int8")
    assert isinstance(model, DigitModel)
    assert (model.description.version, model.description.variant) == ("1.0.0", "int8")
