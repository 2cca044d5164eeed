"""Images in documents: from where as written, and whole in a release."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from skerry.spec.documents import check_document, check_release
from skerry.spec.problems import Problem
from skerry.spec.release import Release

DIGESTS = [f"sha256:{n:064x}" for n in range(4)]


def pinned(name: str = "linux-amd64", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "platform": "linux/amd64",
        "config": {"path": "config.json", "digest": DIGESTS[0], "size_bytes": 1},
        "layers": [{"path": "layers/00.tar", "digest": DIGESTS[1], "size_bytes": 1}],
        **more,
    }


def release_of(*variants: dict[str, Any], **image: Any) -> Release:
    """Return a release with one component that mounts the model digits of variants fp32 and int8."""
    files = [{"path": "model.onnx", "digest": DIGESTS[2], "size_bytes": 1}]
    component = {
        "name": "main",
        "image": {"variants": variants, **image},
        "models": [{"name": "digits", "version": "1.0.0"}],
    }
    value = {
        "type": "release",
        "application": {
            "kind": "Application",
            "metadata": {"name": "reader"},
            "spec": {"version": "1.0.0", "components": [component]},
        },
        "models": [
            {
                "kind": "Model",
                "metadata": {"name": "digits"},
                "spec": {
                    "version": "1.0.0",
                    "variants": [
                        {"name": name, "format": "onnx", "files": files} for name in ("fp32", "int8")
                    ],
                },
            }
        ],
    }
    return msgspec.convert(value, Release)


def told(problems: list[Problem]) -> dict[str, Problem]:
    return {problem.path: problem for problem in problems}


IMAGE = "spec.components[0].image"
LAYER = {"path": "layers/00.tar", "digest": DIGESTS[1], "size_bytes": 1}


def test_a_release_that_is_pinned_whole_is_taken() -> None:
    tied = pinned(models={"digits": ["fp32", "int8"]})
    assert check_release(release_of(tied, pinned("linux-arm64"))) == []


@pytest.mark.parametrize(
    ("release", "path", "message"),
    (
        (release_of(source="oci:x"), f"{IMAGE}.source", "not pinned"),
        (release_of(pinned(config=None)), f"{IMAGE}.variants[0]", "lacks config or layers"),
        (release_of(pinned(layers=[])), f"{IMAGE}.variants[0]", "lacks config or layers"),
        (release_of({"name": "a", "source": "oci:x"}), f"{IMAGE}.variants[0].source", "not pinned"),
        (release_of(), IMAGE, "neither a source nor variants"),
        (release_of(pinned(), source="oci:x"), IMAGE, "has a source and variants"),
        (release_of(pinned(), pinned()), f"{IMAGE}.variants", "linux-amd64 is there 2 times"),
        (release_of(pinned(source="oci:x")), f"{IMAGE}.variants[0]", "has a source and is pinned"),
        (
            release_of(pinned(models={"digits": ["fp16"]})),
            f"{IMAGE}.variants[0].models.digits",
            "no variant fp16",
        ),
        (
            release_of(pinned(models={"words": ["fp32"]})),
            f"{IMAGE}.variants[0].models.words",
            "mounts no model words",
        ),
        (release_of(pinned(models={"digits": []})), f"{IMAGE}.variants[0].models.digits", "names no variant"),
        (release_of(pinned(platform="windows/amd64")), f"{IMAGE}.variants[0].platform", "not a platform"),
        (
            release_of(pinned(requires={"arch": ["amd64"]})),
            f"{IMAGE}.variants[0].requires.arch[0]",
            "calls itself",
        ),
        (release_of(pinned(layers=[LAYER, LAYER])), f"{IMAGE}.variants[0]", "layers/00.tar is there 2 times"),
        (
            release_of(pinned(config={"path": "c", "source": "c"})),
            f"{IMAGE}.variants[0].config.source",
            "no source of their own",
        ),
    ),
)
def test_what_is_not_whole_or_not_there_is_told(release: Release, path: str, message: str) -> None:
    problems = check_release(release)
    assert any(problem.path == path and message in problem.message for problem in problems), problems
    assert all(
        problem.hint for problem in problems if problem.path == path and "times" not in problem.message
    )


def test_a_tie_to_a_model_names_the_variants_there_are() -> None:
    problems = told(check_release(release_of(pinned(models={"digits": ["fp16"]}))))
    assert problems[f"{IMAGE}.variants[0].models.digits"].hint == "variants there: fp32, int8"


def test_as_written_a_variant_has_a_source_and_is_not_pinned_yet() -> None:
    written = release_of({"name": "cpu", "source": "oci:x"}, {"name": "gpu", "source": "oci:y"})
    assert check_document(written.application) == []
    nothing = release_of({"name": "cpu"})
    assert "has no source" in told(check_document(nothing.application))[f"{IMAGE}.variants[0]"].message
