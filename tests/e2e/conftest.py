"""A fleet of real processes for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from skerry.client.client import Client
from skerry.client.profile import load_profile, profile_path
from skerry.testing.fleet import AgentProcess, Fleet
from skerry.testing.waiting import eventually_sync
from tests.e2e.releases import ask, write_release

T = TypeVar("T")

SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: {name}, labels: {{region: {region}}}}}
spec: {{variables: {{greeting: hello from {name}}}}}
"""


class TestFleet(Fleet):
    """A fleet with the few sentences the tests speak."""

    __test__ = False

    def make_site(self, name: str, region: str = "north") -> None:
        """Apply a site document that sets the variable the test application asks for."""
        self.run("apply", "-f", "-", stdin=SITE.format(name=name, region=region))

    def make_sites(self, *names: str) -> None:
        """Do so for several, in one go."""
        documents = "---".join(SITE.format(name=name, region="north") for name in names)
        self.run("apply", "-f", "-", stdin=documents)

    def push(self, version: str, mood: str = "well", **how: object) -> None:
        """Write and push a release of the test application."""
        path = write_release(self.folder / "release", version, mood, **how)  # type: ignore[arg-type]
        self.run("release", "push", str(path))

    def roll_out(self, version: str, *, sites: str = "*", name: str = "", soak: str = "300ms") -> str:
        """Start a rollout and return its name."""
        name = name or f"to-{version.replace('.', '-')}"
        gate = ("--soak", soak, "--deadline", "20s")
        self.run("rollout", "start", f"talker@{version}", "--sites", sites, "--name", name, *gate)
        return name

    def until_runs(self, agent: AgentProcess, version: str, *, not_pid: str = "") -> str:
        """Wait until a host runs a release for good and answers; return the answer."""

        def answer() -> str:
            view = agent.application("talker")
            said = ask(agent.endpoint("talker", "mouth"))
            good = view.get("phase") == "running" and view.get("release") == f"talker@{version}"
            fresh = not not_pid or said.split()[-1:] != [not_pid]
            return said if good and fresh and said.startswith(f"talker@{version} ") else ""

        return self.until(answer, lambda: f"{agent.status()}\n{agent.log.read_text()[-3000:]}")

    def until(self, condition: Callable[[], T], explain: Callable[[], str] = str) -> T:
        """Wait until a condition holds and return its value; `explain` tells more when it never does."""
        try:
            return eventually_sync(condition, limit_s=60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{explain()}") from error

    def rollout_state(self, name: str) -> str:
        """Return the state of a rollout on the hub."""
        # By the client that the command line is made of: this is asked again and again while something is awaited.
        profile = load_profile(profile_path(self.env))
        login = profile.contexts[profile.current]
        with Client(login.hub, ca_pem=login.ca_pem, token=login.token) as client:
            return client.rollout(name).state


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[TestFleet]:
    """A hub that runs, logged in, with no sites yet."""
    with TestFleet(tmp_path) as made:
        made.start()
        yield made


@pytest.fixture(scope="session")
def reader_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The meter reader's image in one file, and Python's beside it; what they are made of is kept from run to run."""
    from tests.e2e.podman_world import archive_of, python_archive, reader_image

    layout, folder = reader_image(), tmp_path_factory.mktemp("image")
    python_archive(layout, folder / "python.tar")
    return archive_of(layout, folder / "image.tar")


@pytest.fixture
def podman_fleet(tmp_path: Path, reader_archive: Path) -> Iterator[TestFleet]:
    """A hub that runs, logged in, with an engine of its own for the agents that come."""
    from skerry.testing.podman import PodmanService
    from tests.e2e.podman_world import PodmanFleet

    with (
        PodmanService(tmp_path / "engine") as engine,
        PodmanFleet(tmp_path / "fleet", engine, reader_archive) as made,
    ):
        made.start()
        yield made
