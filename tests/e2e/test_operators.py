"""What operators do over the command line against a real hub: documents, releases, and what they are told."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import SITE, TestFleet
from tests.e2e.releases import write_release

pytestmark = pytest.mark.e2e


def test_documents_are_applied_once_and_a_difference_is_shown_before_it_is_made(fleet: TestFleet) -> None:
    north, south = SITE.format(name="harbour", region="north"), SITE.format(name="harbour", region="south")
    assert "created" in fleet.run("apply", "-f", "-", stdin=north)
    assert "unchanged" in fleet.run("apply", "-f", "-", stdin=north)
    fleet.run("diff", "-f", "-", stdin=north)
    shown = fleet.run("diff", "-f", "-", stdin=south, code=1)
    assert "-    region: north" in shown
    assert "+    region: south" in shown
    fleet.run("apply", "-f", "-", "--dry-run", stdin=south)
    assert fleet.get("get", "sites", "harbour")["labels"] == {"region": "north"}
    fleet.run("apply", "-f", "-", stdin=south)
    assert fleet.get("get", "sites", "harbour")["labels"] == {"region": "south"}
    assert "region=south" in fleet.run("describe", "site", "harbour")
    assert "region: south" in fleet.run("get", "sites", "harbour", "-o", "yaml")
    fleet.run("delete", "site", "harbour", "--yes")
    fleet.run("describe", "site", "harbour", code=4)


def test_of_several_documents_all_are_stored_or_none_and_every_problem_has_its_line(fleet: TestFleet) -> None:
    right = SITE.format(name="harbour", region="north")
    wrong = SITE.format(name="airport", region="south").replace("variables", "variabels")
    done = fleet.try_run("apply", "-f", "-", stdin=f"{right}---{wrong}")
    assert done.returncode == 2
    assert "did you mean variables" in done.stderr
    line = f"{right}---{wrong}".splitlines().index("spec: {variabels: {greeting: hello from airport}}") + 1
    assert f"stdin:{line}: spec.variabels" in done.stderr
    assert fleet.get("get", "sites") == []


@pytest.mark.rule("RELEASE-1")
def test_a_release_is_pushed_once_and_never_changed(fleet: TestFleet) -> None:
    folder = fleet.folder / "release"
    path = write_release(folder, "1.0.0", ballast={"weights.bin": b"w" * 100_000})
    fleet.run("release", "push", str(path), "--dry-run")
    assert fleet.get("get", "releases") == []
    fleet.run("release", "push", str(path))
    digest = fleet.get("get", "releases", "talker@1.0.0")["digest"]
    again = fleet.run("release", "push", str(path))
    assert "unchanged" in again
    assert "0 B sent in 0 files" in again
    write_release(folder, "1.0.0", "crashes", ballast={"weights.bin": b"w" * 100_000})
    done = fleet.try_run("release", "push", str(path))
    assert done.returncode == 5
    assert "talker@1.0.0" in done.stderr
    assert fleet.get("get", "releases", "talker@1.0.0")["digest"] == digest
    (folder / "1.0.0" / "large.txt").unlink()
    done = fleet.try_run("release", "push", str(path))
    assert done.returncode == 2
    assert f"{path}:" in done.stderr
    assert "large.txt" in done.stderr
    assert [app["name"] for app in fleet.get("get", "apps")] == ["talker"]
    assert fleet.get("get", "models")[0]["variants"] == ["large", "small"]
