"""Evidence at the hub's door: what was signed is there, and says what was signed of it."""

from __future__ import annotations

import httpx2
import msgspec
import pytest

from skerry.hub.api.app import API_PATH
from skerry.kit.digests import digest_of
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component
from skerry.spec.evidence import Evidence
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.trust.evidence import summarise
from tests.unit.evidence_files import CARD, COMPONENT, cyclonedx
from tests.unit.test_hub_policies import Guarded, subject, world

__all__ = ["world"]

pytestmark = pytest.mark.trust


CONTENT = b"#!/bin/sh"


def made() -> Release:
    """Return a release of one file."""
    file = FileSpec(path="run", digest=digest_of(CONTENT), size_bytes=len(CONTENT))
    component = Component(name="main", bundle=Bundle(files=(file,)), command=("./run",))
    spec = ApplicationSpec(version="1", components=(component,))
    return Release(application=Application(metadata=Metadata("reader"), spec=spec))


async def push(world: Guarded, *evidence: Evidence) -> httpx2.Response:
    """Push the release with evidence."""
    load, now = world.hub.repository.load, world.clock.now()
    request = world.publisher.vouch(load, made(), now, evidence=evidence)
    content = msgspec.json.encode(request)
    return await world.ask("publisher", f"{API_PATH}/releases", "POST", content=content)


async def test_evidence_is_taken_with_its_release_and_later_ones_take_its_place(world: Guarded) -> None:
    found = made()
    await world.hub.blobs.put(digest_of(CONTENT), CONTENT)
    bill = summarise("sbom", cyclonedx(COMPONENT), subject(found))
    absent = await push(world, bill)
    assert (absent.status_code, absent.json()["code"]) == (400, "document.invalid")
    await world.hub.blobs.put(bill.digest, cyclonedx(COMPONENT))
    wrong = await push(world, msgspec.structs.replace(bill, summary={"components": 9}))
    assert (wrong.status_code, wrong.json()["code"]) == (400, "document.invalid")
    assert (await push(world, bill)).status_code == 201
    await world.hub.blobs.put(digest_of(CARD), CARD)
    later = await push(world, bill, summarise("model-card", CARD, subject(found)))
    assert later.status_code == 200
    assert [one["kind"] for one in later.json()["evidence"]] == ["sbom", "model-card"]
