"""The meter-reader example: its data are kept apart, its models are as good as said, its app is sturdy.

Models are built once for all tests, without the bundle; the application is driven through its ASGI face.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
for needed in ("sklearn", "onnx", "onnxruntime", "PIL"):
    pytest.importorskip(needed)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "meter-reader"
sys.path[:0] = [str(EXAMPLE), str(EXAMPLE / "app")]

from build_tools.counters import compose_held_out, encode_png  # noqa: E402  the path above must come first
from build_tools.digits import load_split  # noqa: E402
from build_tools.image import write_layout  # noqa: E402
from build_tools.stamp import is_fresh, write_stamp  # noqa: E402
from meter_reader.model import DigitModel, ModelRefusedError, load_model  # noqa: E402
from meter_reader.picture import BadPictureError, check_size, split_digits  # noqa: E402
from meter_reader.settings import SettingsError, parse_settings  # noqa: E402
from meter_reader.web import MAX_BODY_BYTES, Message, MeterReader  # noqa: E402

from skerry.spec.documents import kind_of  # noqa: E402
from skerry.spec.parsing import parse_documents  # noqa: E402

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


def build(out: Path, hash_seed: str = "0") -> None:
    """Run the example's build as a person would, without the bundle."""
    command = [sys.executable, str(EXAMPLE / "build.py"), "--out", str(out), "--without-bundle"]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("meter-reader") / "build"
    build(out)
    return out


@pytest.fixture(scope="session")
def figures(built: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((built / "report.json").read_text(encoding="utf-8"))
    models: dict[str, Any] = report["models"]
    return models


@pytest.fixture(scope="session")
def truth(built: Path) -> list[dict[str, Any]]:
    listing = json.loads((built / "counters" / "counters.json").read_text(encoding="utf-8"))
    counters: list[dict[str, Any]] = listing["counters"]
    return counters


@pytest.fixture
def app(built: Path) -> MeterReader:
    return MeterReader(load_model(built / "1.1.0" / "fp32"))


@pytest.fixture
def counter_png(built: Path) -> bytes:
    return (built / "counters" / "counter-000.png").read_bytes()


def refused(directory: Path) -> ModelRefusedError:
    with pytest.raises(ModelRefusedError) as caught:
        load_model(directory)
    return caught.value


# --- data ------------------------------------------------------------------------------------------------


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


# --- the process -----------------------------------------------------------------------------------------


def test_settings_come_from_the_environment_and_are_checked() -> None:
    env = {"SKERRY_PORT_HTTP": "8080", "SKERRY_MODEL_DIGITS": "models/digits"}
    settings = parse_settings(env)
    assert (settings.host, settings.port, settings.model_dir) == ("127.0.0.1", 8080, Path("models/digits"))
    assert parse_settings({**env, "SKERRY_HOST": "::1"}).host == "::1"
    for port in ("", "0", "65536", "-1", "http", "²"):
        with pytest.raises(SettingsError, match="SKERRY_PORT_HTTP"):
            parse_settings({**env, "SKERRY_PORT_HTTP": port})
    with pytest.raises(SettingsError, match="SKERRY_MODEL_DIGITS"):
        parse_settings({"SKERRY_PORT_HTTP": "8080"})


def test_the_process_serves_and_ends_cleanly_on_sigterm(built: Path, counter_png: bytes) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    env = {
        **os.environ,
        "PYTHONPATH": str(EXAMPLE / "app"),
        "SKERRY_PORT_HTTP": str(port),
        "SKERRY_MODEL_DIGITS": str(built / "1.1.0" / "int8"),
    }
    process = subprocess.Popen([sys.executable, "-m", "meter_reader"], env=env, stderr=subprocess.DEVNULL)
    try:
        assert request_patiently(port, "GET", "/healthz") == 200
        assert request_patiently(port, "POST", "/infer", counter_png) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def test_a_hangup_brings_the_model_of_the_day_and_a_refused_one_fails_the_health_probe(
    built: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    link = tmp_path / "model"
    link.symlink_to(built / "1.0.0" / "int8")
    env = {
        **os.environ,
        "PYTHONPATH": str(EXAMPLE / "app"),
        "SKERRY_PORT_HTTP": str(port),
        "SKERRY_MODEL_DIGITS": str(link),
    }
    process = subprocess.Popen([sys.executable, "-m", "meter_reader"], env=env, stderr=subprocess.DEVNULL)
    try:
        assert request_patiently(port, "GET", "/healthz") == 200
        for version, status in (("1.1.0", 200), ("1.2.0", 503), ("1.0.0", 200)):
            (tmp_path / "new").symlink_to(built / version / "int8")
            (tmp_path / "new").rename(link)
            process.send_signal(signal.SIGHUP)
            # The signal is there before the request, and is handled before anything else.
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            body = json.loads(answer.read())
            connection.close()
            assert answer.status == status
            assert status == 503 or body["model"]["version"] == version
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def request_patiently(port: int, method: str, path: str, body: bytes = b"") -> int:
    """The status of one request, asked again until somebody listens."""
    give_up = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request(method, path, body, {"content-type": PNG})
            return connection.getresponse().status
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def test_the_process_says_what_its_environment_lacks() -> None:
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(EXAMPLE / "app")}
    command = [sys.executable, "-m", "meter_reader"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "SKERRY_PORT_HTTP is not set" in done.stderr


def test_a_bundle_for_another_interpreter_says_so(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "app", tmp_path / "app")
    note = tmp_path / "app" / "meter_reader" / "built-for.json"
    note.write_text('{"python": "3.99", "machine": "abacus"}', encoding="utf-8")
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(tmp_path / "app")}
    command = [sys.executable, "-m", "meter_reader"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "built for Python 3.99 on abacus, this is Python 3." in done.stderr


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


def test_a_loaded_model_knows_its_version(built: Path) -> None:
    model = load_model(built / "1.0.0" / "int8")
    assert isinstance(model, DigitModel)
    assert (model.description.version, model.description.variant) == ("1.0.0", "int8")
