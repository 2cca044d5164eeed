"""What comes over the wire: endless, slow, cut off, damaged or malformed files, and the targets themselves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from skerry.trust import metadata as core
from tests.conformance import tuf_client
from tests.conformance.upstream import Client, answer

pytestmark = pytest.mark.trust

ROOT = Path(__file__).resolve().parents[2]
TOP_FILES = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def silent(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.flush()
    handler.connection.settimeout(30)
    handler.rfile.read(1)  # until the client has given up


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")


@pytest.mark.rule("TRUST-7")
@pytest.mark.parametrize("name", TOP_FILES)
def test_an_endless_file_is_given_up_at_its_bound_of_memory(client: Client, name: str) -> None:
    client.upstream.respond[name] = endless
    tracemalloc.start()
    try:
        assert client.refresh() == "metadata.too_long"
        assert tracemalloc.get_traced_memory()[1] < 3 * core.TARGETS_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.rule("TRUST-7")
def test_of_a_file_whose_length_is_signed_no_more_is_taken(client: Client) -> None:
    client.upstream.hashes = True
    client.upstream.publish_all()
    client.upstream.files["2.targets.json"] += b" "
    assert client.refresh() == "metadata.too_long"


@pytest.mark.rule("TRUST-7")
@pytest.mark.parametrize("name", TOP_FILES)
def test_an_upstream_that_falls_silent_is_given_up(client: Client, name: str) -> None:
    client.upstream.respond[name] = silent
    assert client.refresh("--silence", "0.1") == "upstream.unreachable"


@pytest.mark.rule("TRUST-7")
def test_an_upstream_that_drips_is_given_up(client: Client) -> None:
    client.upstream.respond["timestamp.json"] = dripping
    assert client.refresh("--answer", "0.05") in ("upstream.slow", "metadata.too_long")


@pytest.mark.parametrize("name", TOP_FILES)
def test_a_file_that_is_cut_off_is_not_taken_for_an_absent_one(client: Client, name: str) -> None:
    client.upstream.respond[name] = cut_off
    assert client.refresh() == "upstream.unreachable"


@pytest.mark.parametrize("status", (301, 429, 500, 503))
def test_a_failure_of_upstream_is_not_taken_for_the_end_of_the_roots(client: Client, status: int) -> None:
    client.upstream.respond["2.root.json"] = lambda handler: answer(handler, b"", status)
    assert client.refresh() == "upstream.refused"
    assert client.asked == ["2.root.json"]


@pytest.mark.parametrize("status", (403, 404))
def test_stores_that_refuse_what_they_do_not_have_end_the_roots_too(client: Client, status: int) -> None:
    client.upstream.respond["2.root.json"] = lambda handler: answer(handler, b"", status)
    assert client.refresh() == ""


MALFORMED = {
    "nothing": b"",
    "no JSON": b"metadata",
    "no text": b"\xff\xfe{}",
    "a list": b"[]",
    "null": b"null",
    "a number of too many digits": b'{"signed": ' + b"9" * 10_000 + b"}",
    "deep": b'{"signed": ' + b"[" * 7_000,
    "deep and whole": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    "no signatures": b'{"signed": {"_type": "root"}}',
    "no type": b'{"signed": {}, "signatures": []}',
    "a strange type": b'{"signed": {"_type": "mirrors"}, "signatures": []}',
    "signatures of nothing": b'{"signed": {"_type": "timestamp"}, "signatures": [null, 1, {}]}',
    "infinity": b'{"signed": Infinity, "signatures": []}',
}


@pytest.mark.rule("TRUST-7")
@pytest.mark.parametrize("name", TOP_FILES)
@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_metadata_is_refused_as_malformed(client: Client, name: str, case: str) -> None:
    client.upstream.files[name] = MALFORMED[case]
    assert client.refresh() == "metadata.malformed"


STRANGE: dict[str, list[object]] = {
    "version": ["1", 0, -1, 1.5, [], 10**400, "1" * 400],
    "expires": ["", "tomorrow", 5, None, "9999-99-99T99:99:99Z", "2100-01-01T00:00:00+00:00"],
    "spec_version": ["", "2.0.0", "1", 1.0, "1.0.0.0.0", "1.x"],
    "meta": [None, [], {"snapshot.json": 1}, {"snapshot.json": {"version": -1}}],
}


@pytest.mark.rule("TRUST-7")
@pytest.mark.parametrize("field", STRANGE)
def test_rightly_signed_nonsense_is_refused_without_a_crash(client: Client, field: str) -> None:
    for value in STRANGE[field]:
        content = json.loads(client.upstream.files["timestamp.json"])
        content["signed"][field] = value
        client.upstream.files["timestamp.json"] = json.dumps(content).encode()
        # Signatures come after the form: both are a refusal.
        assert client.refresh() in ("metadata.malformed", "metadata.bad_signature"), value
        assert client.version("timestamp") is None
        client.upstream.serve("timestamp", client.upstream.sign("timestamp"))


# --- targets ------------------------------


def test_a_target_is_found_fetched_by_its_hash_and_not_fetched_again(client: Client) -> None:
    client.upstream.add_target("targets", "path/to/file.txt", b"content")
    client.upstream.publish_all()
    assert client.download("path/to/file.txt") == ""
    assert client.downloaded() == [b"content"]
    assert client.upstream.asked[-1] == f"path/to/{hashlib.sha256(b'content').hexdigest()}.file.txt"
    assert client.download("path/to/file.txt") == ""
    assert client.upstream.asked == ["2.root.json", "timestamp.json"]


def test_a_download_brings_the_metadata_up_to_date_also_when_nobody_has_the_target(client: Client) -> None:
    assert client.download("nothing") == "target.unknown"
    assert client.versions == [1, 1, 1, 1]


@pytest.mark.rule("TRUST-4")
@pytest.mark.parametrize("served", (b"c0ntent", b"", b"conten", b"content and more"))
def test_a_target_of_another_content_is_refused(client: Client, served: bytes) -> None:
    client.upstream.add_target("targets", "file", b"content")
    client.upstream.publish_all()
    client.upstream.targets_served = dict.fromkeys(client.upstream.targets_served, served)
    too_long = len(served) > len(b"content")
    assert client.download("file") == ("metadata.too_long" if too_long else "target.mismatch")
    assert client.downloaded() == []


def test_a_target_that_changed_replaces_the_one_before(client: Client) -> None:
    for number in range(3):
        client.upstream.add_target("targets", "file", b"content %d" % number)
        client.upstream.publish_all()
        assert client.download("file") == ""
        assert client.downloaded() == [b"content %d" % number]


def test_a_target_that_was_altered_on_disk_is_fetched_again(client: Client) -> None:
    client.upstream.add_target("targets", "file", b"content")
    client.upstream.publish_all()
    client.download("file")
    (file,) = client.target_dir.iterdir()
    file.write_bytes(b"altered")
    assert client.download("file") == ""
    assert client.downloaded() == [b"content"]


def test_a_target_that_is_not_there_is_missing(client: Client) -> None:
    client.upstream.add_target("targets", "file", b"content")
    client.upstream.targets_served.clear()
    client.upstream.publish_all()
    assert client.download("file") == "target.missing"


# --- as a command ------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tests/conformance/tuf_client.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_initialises_refreshes_downloads_and_tells_by_its_exit_code(client: Client) -> None:
    client.upstream.add_target("targets", "file", b"content")
    client.upstream.publish_all()
    client.upstream.asked.clear()
    root = client.folder.parent / "trusted_root.json"
    begun = command("--metadata-dir", str(client.folder), "init", str(root))
    assert (begun.returncode, client.upstream.asked) == (0, [])
    refreshed = command(*client.refresh_arguments())
    assert (refreshed.returncode, refreshed.stderr) == (0, "")
    assert client.versions == [1, 2, 2, 2]
    assert command(*client.download_arguments("file")).returncode == 0
    assert client.downloaded() == [b"content"]
    unknown = command(*client.download_arguments("other"))
    assert (unknown.returncode, unknown.stderr.partition(":")[0]) == (1, "target.unknown")


def test_the_command_goes_by_the_clock_of_the_machine(client: Client) -> None:
    client.upstream.timestamp.expires = datetime(2001, 1, 1, tzinfo=UTC)
    client.upstream.publish("timestamp")
    refused = command(*client.refresh_arguments())
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "metadata.expired")
    assert client.versions == [1, None, None, None]


def test_a_folder_that_was_not_initialised_is_told(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    (client.folder / "roots" / "first").unlink()
    assert tuf_client.main(client.refresh_arguments()) == 1
    assert "first" in capsys.readouterr().err
