"""Pictures from the message bus: they are read as those over HTTP, and what is no picture is told or passed over."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.meter_reader.building import need_libraries

need_libraries()
pytest.importorskip("paho")

from meter_reader.bus import BusSettings, answer_to, parse_bus_settings  # noqa: E402  skipped first where missing
from meter_reader.model import load_model  # noqa: E402
from meter_reader.web import MeterReader  # noqa: E402
from PIL import Image  # noqa: E402

FRAME = {"sequence": 7, "quality": "good", "source_time": "2026-05-04T12:00:00.120Z"}


@pytest.fixture
def app(built: Path) -> MeterReader:
    return MeterReader(load_model(built / "1.1.0" / "fp32"))


def message(jpeg: bytes) -> bytes:
    return json.dumps({**FRAME, "jpeg": base64.b64encode(jpeg).decode()}).encode()


def test_a_cameras_picture_is_read_and_keeps_its_number_quality_and_time(
    built: Path, app: MeterReader, truth: list[dict[str, Any]]
) -> None:
    picture, jpeg = Image.open(built / "counters" / truth[3]["file"]), io.BytesIO()
    picture.resize((picture.width * 4, picture.height * 4)).save(jpeg, format="JPEG", quality=90)
    told = answer_to(message(jpeg.getvalue()), app.read_picture)
    assert told is not None
    assert told["digits"] == truth[3]["digits"]
    assert told["value"] == int(told["digits"])
    assert told["score"] > 0.9
    assert {name: told[name] for name in FRAME} == FRAME
    assert told["model"] == {"version": "1.1.0", "variant": "fp32"}
    assert "meter_reader_score_count 5" in app.metrics.render(version="1.1.0", variant="fp32")


def test_a_picture_that_cannot_be_read_is_told_as_bad_with_the_reason(app: MeterReader) -> None:
    told = answer_to(message(b"no picture"), app.read_picture)
    assert told == {**FRAME, "value": None, "quality": "bad", "why": "the body is no readable JPEG file"}


@pytest.mark.parametrize(
    "payload", (b"", b"[]", b"{}", b'"x"', b'{"jpeg": 5}', b'{"jpeg": "*"}', b"[" * 100_000, b" " * 300_000)
)
def test_what_is_no_message_of_a_camera_is_passed_over(app: MeterReader, payload: bytes) -> None:
    assert answer_to(payload, app.read_picture) is None


def test_the_bus_is_used_where_pictures_are_asked_for_and_the_host_has_one() -> None:
    bus = {
        "SKERRY_BUS_URL": "mqtt://127.0.0.1:1883",
        "SKERRY_BUS_USER": "reader",
        "SKERRY_BUS_PASSWORD_FILE": "/f",
    }
    asked = {
        "READER_PICTURES": "camera/+/picture",
        "SKERRY_HOST_NAME": "edge",
        "SKERRY_APPLICATION": "reader",
    }
    assert parse_bus_settings(bus) is None
    assert parse_bus_settings(asked) is None
    assert parse_bus_settings({**bus, **asked}) == BusSettings(
        "mqtt://127.0.0.1:1883", "reader", "/f", "", "edge-reader", "camera/+/picture", "reading"
    )
