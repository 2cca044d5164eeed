"""When a hub takes a Report, and what comes beside it: signed by the host it names, of the site it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from securesystemslib.signer import Key

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Untrusted
from skerry.spec.questions import ANSWER_TYPE, AnswerPart
from skerry.spec.report import REPORT_TYPE, Report
from skerry.spec.telemetry import METRICS_TYPE, TELEMETRY_TYPE, MetricBatch, TelemetryBatch
from skerry.spec.uplink import UPLINK_TYPE, TopicBatch
from skerry.trust.envelope import sign_payload, verify_document, verify_payload
from skerry.trust.keys import SigningKey

B = TypeVar("B", TelemetryBatch, TopicBatch, AnswerPart)


def claimed_key(envelope: dict[str, Any]) -> str:
    """Return the key id that a Report envelope claims. Believe nothing: it only picks the key to check with.

    Raises:
        Untrusted: there is no signature with a key id (`envelope.malformed`).
    """
    try:
        name = envelope["signatures"][0]["keyid"]
    except (KeyError, IndexError, TypeError):
        name = None
    if not isinstance(name, str) or len(name) > 128:
        raise Untrusted("envelope.malformed", "not a signed envelope")
    return name


def verify_report(envelope: dict[str, Any], key: Key, *, host: str, site: str) -> Report:
    """Return the Report of an envelope signed by `key`.

    Raises:
        Untrusted: not signed by that key (`envelope.*`), of another host (`report.wrong_host`) or site
            (`report.wrong_site`).
    """
    report = verify_document(envelope, REPORT_TYPE, Report, [key])
    if report.host != host:
        raise Untrusted("report.wrong_host", f"{host} signed a report of {report.host[:64]}")
    if report.site != site:
        raise Untrusted("report.wrong_site", f"{host} belongs to site {site}, not to {report.site[:64]}")
    return report


def unbroken(reports: Sequence[Report], newest: int) -> Sequence[Report]:
    """Return the reports of a host, in order, up to where one is missing, for who has got as far as `newest`.

    Reports that were had before are among them. When some are left out, who asks answers `tell_all` and forgets what
    it holds of the host and the hub has not acknowledged: all of that comes again, from the first that is missing.
    """
    for number, report in enumerate(reports):
        if report.after > newest:
            return reports[:number]
        newest = max(newest, report.sequence)
    return reports


AnyBatch = MetricBatch | TelemetryBatch | TopicBatch | AnswerPart


def sign_batch(batch: TelemetryBatch | TopicBatch, key: SigningKey) -> dict[str, Any]:
    """Return the envelope, as JSON, of a batch."""
    kind = TELEMETRY_TYPE if isinstance(batch, TelemetryBatch) else UPLINK_TYPE
    return sign_payload(msgspec.msgpack.encode(batch), kind, key)


def sign_answer(part: AnswerPart, key: SigningKey) -> dict[str, Any]:
    """Return the envelope, as JSON, of a part of an answer."""
    return sign_payload(msgspec.msgpack.encode(part), ANSWER_TYPE, key)


def verify_metrics(envelope: dict[str, Any], key: Key, report: Report) -> AnyBatch:
    """Return the batch, or part of an answer, of an envelope signed by `key`, made for the Report it came with.

    Raises:
        Untrusted: not signed by that key (`envelope.*`), no such batch (`document.malformed`), or for another report
            (`metrics.wrong_report`), so that nobody can hand up an old one.
    """
    batch: AnyBatch
    if envelope.get("payloadType") == TELEMETRY_TYPE:
        batch = _decode(verify_payload(envelope, TELEMETRY_TYPE, [key]), TelemetryBatch)
    elif envelope.get("payloadType") == UPLINK_TYPE:
        batch = _decode(verify_payload(envelope, UPLINK_TYPE, [key]), TopicBatch)
    elif envelope.get("payloadType") == ANSWER_TYPE:
        batch = _decode(verify_payload(envelope, ANSWER_TYPE, [key]), AnswerPart)
    else:
        batch = verify_document(envelope, METRICS_TYPE, MetricBatch, [key])
    if (batch.host, batch.site, batch.sequence) != (report.host, report.site, report.sequence):
        raise Untrusted("metrics.wrong_report", "the metrics are not of the report they came with")
    return batch


def _decode(payload: bytes, kind: type[B]) -> B:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except UNREADABLE as error:
        message = f"not a {kind.__name__}: {str(error)[:200]}"
        raise Untrusted("document.malformed", message) from error
