"""Snapping a release before it is pushed: what is paired, what the evaluation decides, and what is then pushed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from skerry.client.client import Client
from skerry.client.images.cache import BlobCache
from skerry.client.push import Publish, push_release
from skerry.client.snapping import SnapRequest, snap_release
from skerry.client.snapping_report import SnapOutcome
from skerry.client.snapping_variant import Workshop
from skerry.client.sources import PreparedRelease, read_release
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Rejected
from skerry.spec.release import Release
from tests.unit.delta_files_of import safetensors_of
from tests.unit.hub_double import TOKEN, HubDouble, serve_hub
from tests.unit.signing_hub import registered

pytestmark = pytest.mark.delivery

# The weights themselves are the outputs; `error` is how far they are from those that were trained.
EVALUATE = """
import json, os, pathlib
import numpy as np

def weights(path):
    content = path.read_bytes()
    return np.frombuffer(content[8 + int.from_bytes(content[:8], "little"):], "<f4").astype("f8")

held = pathlib.Path(os.environ["SKERRY_MODEL_DIR"])
assert (held / "labels" / "names.txt").read_text() == "a b"
got, wanted = weights(held / "w.safetensors"), weights(pathlib.Path("w-1.1.0.safetensors"))
error = float(np.abs(got - wanted).max())
print(json.dumps({"metrics": {"error": error}, "outputs": {"one": got[:3].tolist()}}))
"""

DOCUMENTS = """\
kind: Model
metadata: {{name: digits}}
spec:
  version: {version}
  self_test:
    tolerance: {{absolute: {absolute}, relative: 0}}
    cases:
      - {{name: one, input: {{path: in.json, source: in.json}}, expected: {{path: out.json, source: out.json}}}}
  {evaluation}
  variants:
    - name: fp32
      format: safetensors
      files:
        - {{path: w.safetensors, source: w-{version}.safetensors}}
        - {{path: labels/names.txt, source: names.txt}}
---
kind: Application
metadata: {{name: reader}}
spec:
  version: {version}
  components:
    - name: reader
      command: ["${{bundle}}/app"]
      bundle: {{files: [{{path: app, source: names.txt}}]}}
      models: [{{name: digits, version: {version}}}]
"""
WORDS = 4000


def quietly(path: Path, done_bytes: int, total_bytes: int) -> None:
    """Hash without saying so."""


def silently(doing: str) -> None:
    """Snap without saying so."""


class World(NamedTuple):
    """A folder of documents, a hub, a client and a cache."""

    folder: Path
    hub: HubDouble
    client: Client
    cache: BlobCache
    publish: Publish

    def write(
        self, version: str, *, worse_by: float = 1.0, absolute: float = 1.0, evaluation: str = ""
    ) -> Path:
        command = f"[{sys.executable}, evaluate.py]"
        evaluation = evaluation or (
            f"evaluation: {{command: {command}, metrics: {{error: {{worse_by: {worse_by}, better: lower}}}}}}"
        )
        path = self.folder / f"release-{version}.yaml"
        path.write_text(DOCUMENTS.format(version=version, evaluation=evaluation, absolute=absolute))
        return path

    def push(self, prepared: PreparedRelease) -> None:
        push_release(self.client, prepared, self.publish, lambda _: None)
        views: list[dict[str, Any]] = [
            {
                "name": name,
                "application": "reader",
                "version": name.partition("@")[2],
                "digest": digest_of(content),
                "models": {},
                "size_bytes": 1,
                "created_at": f"2026-01-0{number}T00:00:00Z",
                "created_by": "test",
            }
            for number, (name, content) in enumerate(self.hub.releases.items(), start=1)
        ]
        self.hub.views["/releases"] = views
        for view in views:
            document = msgspec.json.decode(self.hub.releases[str(view["name"])])
            self.hub.views[f"/releases/{view['name']}"] = view | {"document": document}

    def snap(
        self, path: Path, release: str = "", bits: int | None = None
    ) -> tuple[PreparedRelease, SnapOutcome]:
        prepared = read_release(path, quietly)
        shop = Workshop(self.client, self.cache, prepared.sources, silently)
        return snap_release(shop, prepared, SnapRequest(self.folder, os.environ, release, bits))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rng = np.random.default_rng(5)
    old = (0.05 * rng.standard_normal(WORDS)).astype("<f4")
    new = (old * (1 + 0.02 * rng.standard_normal(WORDS))).astype("<f4")
    folder = tmp_path / "release"
    folder.mkdir()
    for version, weights in (("1.0.0", old), ("1.1.0", new)):
        (folder / f"w-{version}.safetensors").write_bytes(safetensors_of({"w": ("F32", weights.tobytes())}))
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "names.txt").write_text("a b")
    (folder / "in.json").write_text("[0]")
    (folder / "out.json").write_text(str(new[:3].tolist()))
    with (
        serve_hub(tmp_path) as hub,
        Client(hub.url, ca_pem=hub.ca_pem, token=TOKEN) as client,
        BlobCache(tmp_path / "cache") as cache,
    ):
        publish = registered(client, hub.signing, tmp_path / "publisher").publish_release
        made = World(folder, hub, client, cache, publish)
        made.push(read_release(made.write("1.0.0"), quietly))
        yield made


def weights_digest(release: Release) -> str:
    return str(release.models[0].spec.variants[0].files[0].digest)


def test_a_snapped_model_is_pushed_in_place_of_the_exact_one(world: World) -> None:
    path = world.write("1.1.0", worse_by=0.001)
    prepared, outcome = world.snap(path)
    (variant,) = outcome.variants
    assert (outcome.release, variant.bits) == ("reader@1.0.0", 14)
    assert [attempt.bits for attempt in variant.attempts] == [18, 14]
    assert "error went from 0 to" in variant.attempts[0].failure
    (metric,) = variant.metrics
    assert metric.exact == 0 < metric.snapped < 0.001
    (file,) = variant.files
    assert file.snapped_delta_bytes is not None
    assert file.snapped_delta_bytes < file.exact_delta_bytes / 1.5 < file.full_bytes
    assert 0.9 * WORDS < file.words_changed <= WORDS and file.largest_error <= 2**-9
    world.push(prepared)
    published = msgspec.json.decode(world.hub.releases["reader@1.1.0"], type=Release)
    snapped = published.models[0].spec.variants[0].snapped
    assert snapped and (snapped.release, snapped.bits) == ("reader@1.0.0", 14)
    assert snapped.largest_error == file.largest_error
    exact = (world.folder / "w-1.1.0.safetensors").read_bytes()
    content = world.hub.blobs[weights_digest(published)]
    assert len(content) == len(exact) and content != exact
    assert digest_of(exact) not in world.hub.blobs, "only what is released travels"


def test_pushing_it_again_makes_the_very_same_release(world: World) -> None:
    path = world.write("1.1.0", worse_by=0.001)
    prepared, _ = world.snap(path)
    world.push(prepared)
    newer = world.write("1.2.0")
    newer.write_text(newer.read_text().replace("w-1.2.0", "w-1.1.0"))
    world.push(read_release(newer, quietly))
    again, outcome = world.snap(path)
    assert outcome.release == "reader@1.0.0"
    assert again.content == prepared.content


def test_when_no_bits_pass_the_exact_file_stays_and_it_is_told_why(world: World) -> None:
    prepared, outcome = world.snap(world.write("1.1.0", worse_by=0))
    (variant,) = outcome.variants
    assert (variant.bits, [attempt.bits for attempt in variant.attempts]) == (0, [18, 14, 10])
    assert variant.why.startswith("no number of bits passes: error went from 0 to")
    assert weights_digest(prepared.release) == digest_of((world.folder / "w-1.1.0.safetensors").read_bytes())
    assert prepared.release.models[0].spec.variants[0].snapped is None


def test_golden_cases_decide_as_well(world: World) -> None:
    _, outcome = world.snap(world.write("1.1.0", absolute=1e-4))
    assert outcome.variants[0].bits == 14
    assert "case one: output" in outcome.variants[0].attempts[0].failure


def test_bits_that_were_asked_for_must_pass(world: World) -> None:
    path = world.write("1.1.0", worse_by=0.001)
    with pytest.raises(Rejected, match="snapped by 18 bits does not pass") as caught:
        world.snap(path, bits=18)
    assert caught.value.code == "snap.worse"
    assert world.snap(path, bits=12)[1].variants[0].bits == 12


@pytest.mark.parametrize(
    ("evaluation", "code"),
    (
        ("# none", "snap.no_evaluation"),
        ("evaluation: {command: [python3, -c, 'print(1)']}", "snap.evaluation"),
        ("evaluation: {command: [python3, -c, 'print(\"{}\")']}", "snap.exact_fails"),
    ),
)
def test_a_model_that_cannot_be_judged_is_refused(world: World, evaluation: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        world.snap(world.write("1.1.0", evaluation=evaluation))
    assert caught.value.code == code
    assert caught.value.hint


def test_the_exact_files_must_pass_their_own_cases(world: World) -> None:
    (world.folder / "out.json").write_text("[9, 9, 9]")
    with pytest.raises(Rejected, match="exact files do not pass: case one: output"):
        world.snap(world.write("1.1.0"))


def test_a_command_that_fails_on_snapped_weights_alone_is_a_failed_attempt(world: World) -> None:
    script = EVALUATE.replace("print(", "assert error < 1e-5, 'too far'\nprint(")
    (world.folder / "evaluate.py").write_text(script)
    _, outcome = world.snap(world.write("1.1.0"))
    assert outcome.variants[0].bits == 0
    assert "too far" in outcome.variants[0].why


def test_without_another_release_or_a_changed_file_there_is_nothing_to_snap(world: World) -> None:
    first = world.write("1.0.0")
    assert world.snap(first)[1] == SnapOutcome("", "the hub has no other release of reader to snap to")
    same = world.write("1.1.0")
    same.write_text(same.read_text().replace("w-1.1.0", "w-1.0.0"))
    assert world.snap(same)[1].why == "no file of a model has changed since reader@1.0.0"


def test_a_file_without_floats_in_common_is_told_and_not_evaluated(world: World) -> None:
    (world.folder / "w-1.1.0.safetensors").write_bytes(safetensors_of({"other": ("F32", bytes(4 * WORDS))}))
    (world.folder / "evaluate.py").unlink()
    _, outcome = world.snap(world.write("1.1.0"))
    assert outcome.variants[0].why == "it has no tensor of floats in common with the other release"


def test_the_release_to_snap_to_can_be_named(world: World) -> None:
    path = world.write("1.1.0")
    assert world.snap(path, "reader@1.0.0")[1].release == "reader@1.0.0"
    with pytest.raises(Missing):
        world.snap(path, "reader@0.9.0")
    with pytest.raises(Rejected, match="cannot be snapped to itself"):
        world.snap(path, "reader@1.1.0")


def test_what_the_hub_gives_is_believed_by_its_digest_alone(world: World) -> None:
    digest = weights_digest(msgspec.json.decode(world.hub.releases["reader@1.0.0"], type=Release))
    world.hub.blobs[digest] = bytes(len(world.hub.blobs[digest]))
    with pytest.raises(Rejected, match="the content is sha256"):
        world.snap(world.write("1.1.0"))


def run_push(world: World, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line as a process, after some statements."""
    (world.folder / "token").write_text(TOKEN)
    environment = {
        "XDG_CACHE_HOME": str(world.folder / "xdg"),
        "SKERRY_CONFIG": str(world.folder / "config.json"),
        "SKERRY_HUB": world.hub.url,
        "SKERRY_ROOT": world.hub.root,
        "SKERRY_TOKEN_FILE": str(world.folder / "token"),
    }
    script = f"import sys\n{before}\nfrom skerry.cli.main import run\nsys.exit(run(sys.argv[1:]))"
    return subprocess.run(
        (sys.executable, "-c", script, "release", "push", *arguments),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_numpy_it_is_said_what_to_install(world: World) -> None:
    path = str(world.write("1.1.0"))
    done = run_push(world, path, "--snap", before="sys.modules['numpy'] = None")
    assert done.returncode == 2
    assert "snapping weights needs numpy" in done.stderr
    assert "pip install numpy" in done.stderr


def test_a_dry_run_tells_what_would_be_snapped_and_sends_nothing(world: World) -> None:
    received = world.hub.received_bytes
    done = run_push(world, str(world.write("1.1.0", worse_by=0.001)), "--snap", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "digits/fp32: snapped to reader@1.0.0 by 14 bits" in done.stdout
    assert "not by 18 bits: error went from 0 to" in done.stdout
    assert "release reader@1.1.0 would be pushed" in done.stdout
    assert "evaluating digits/fp32 as it is" in done.stderr
    assert (world.hub.received_bytes, list(world.hub.releases)) == (received, ["reader@1.0.0"])
