"""Sinks: what may be written, and that every problem is told."""

from __future__ import annotations

from typing import Any

import pytest

from skerry.adapters.sink_files import MAX_SECRET_BYTES, read_sink_secret
from skerry.kit.errors import Rejected
from skerry.spec.parsing import parse_documents
from skerry.spec.problems import DocumentRejected

WEBHOOK = "webhook: {url: https://erp.example.com/in}"


def problems(spec: str) -> dict[str, str]:
    text = f"apiVersion: skerry/v1\nkind: Sink\nmetadata: {{name: erp}}\nspec: {{{spec}}}\n"
    try:
        parse_documents(text, file="sink.yaml")
    except DocumentRejected as error:
        return {one.path: one.message for one in error.problems}
    return {}


@pytest.mark.parametrize(
    "place",
    (
        WEBHOOK,
        "webhook: {url: 'http://127.0.0.1:8080/in?a=1', secret_file: erp.key, timeout: 30s, batch: 1}",
        "webhook: {url: 'http://[::1]:8080'}",
        "webhook: {url: http://erp.example.com, insecure: true}",
        "mqtt: {url: mqtts://b.example.com, prefix: a/b, username: u, password_file: p, ca_file: ca.pem}",
        "mqtt: {url: 'mqtt://localhost:1883', prefix: a, username: u, password_file: p}",
    ),
)
def test_a_sink_names_one_place(place: str) -> None:
    assert problems(f"topics: ['#'], {place}") == {}
    assert problems(f"topics: [plant/+/count, plant/a], sites: region=north, {place}") == {}


@pytest.mark.parametrize(
    ("spec", "paths"),
    (
        ("topics: [a]", {"spec"}),
        (f"topics: [a], {WEBHOOK}, mqtt: {{url: 'mqtt://localhost', prefix: a, username: u, password_file: p}}",
         {"spec"}),
        (f"topics: [a, a], {WEBHOOK}", {"spec.topics"}),
        (f"topics: [plant/#, plant/a], {WEBHOOK}", {"spec.topics[1]"}),
        (f"topics: [+/a], {WEBHOOK}", {"spec.topics[0]"}),
        ("topics: [a], webhook: {url: http://erp.example.com}", {"spec.webhook.url"}),
        ("topics: [a], webhook: {url: 'https://erp:99999/'}", {"spec.webhook.url"}),
        ("topics: [a], webhook: {url: 'https://user:word@erp/'}", {"spec.webhook.url"}),
        ("topics: [a], webhook: {url: ftp://erp}", {"spec.webhook.url"}),
        ("topics: [a], webhook: {url: https://erp, timeout: 31s}", {"spec.webhook.timeout"}),
        ("topics: [a], webhook: {url: https://erp, secret_file: ../hub.key}", {"spec.webhook.secret_file"}),
        ("topics: [a], webhook: {url: https://erp, secret_file: ..}", {"spec.webhook.secret_file"}),
        ("topics: [a], webhook: {url: https://erp, secret_file: /etc/passwd}", {"spec.webhook.secret_file"}),
        ("topics: [a], mqtt: {url: mqtt://b.example.com, prefix: a, username: u, password_file: p}",
         {"spec.mqtt.url"}),
        ("topics: [a], mqtt: {url: mqtts://b.example.com, prefix: a, username: u, password_file: p}",
         {"spec.mqtt.ca_file"}),
    ),
)  # fmt: skip
def test_what_is_wrong_with_a_sink_is_told_where_it_stands(spec: str, paths: set[str]) -> None:
    assert set(problems(spec)) == paths


@pytest.mark.parametrize("name", ("../out", "/etc/hostname", "..", "a/b", ".hidden", "absent", "folder"))
def test_secrets_are_read_from_one_directory_alone(tmp_path: Any, name: str) -> None:
    folder = tmp_path / "sinks"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "out").write_text("the hub's own")
    with pytest.raises(Rejected) as caught:
        read_sink_secret(folder, name)
    assert caught.value.code == "sink.file"
    assert "hub's own" not in str(caught.value)


def test_a_secret_is_neither_empty_nor_a_whole_file_system(tmp_path: Any) -> None:
    (tmp_path / "good").write_text(" word\n")
    assert read_sink_secret(tmp_path, "good") == b"word"
    for content in ("", " \n", "x" * (MAX_SECRET_BYTES + 1)):
        (tmp_path / "bad").write_text(content)
        with pytest.raises(Rejected):
            read_sink_secret(tmp_path, "bad")
