"""Configurations on a host: tried as releases are, taken without a restart where that is enough, and gone back from."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Bundle,
    Component,
    ConfigFile,
    ConfigUse,
    HttpProbe,
    OnConfigChange,
    Port,
    Probe,
    Probes,
)
from skerry.spec.configuration import ApplicationConfig, Configured
from skerry.spec.desired import ReleaseRef
from skerry.spec.documents import check_release
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.testing.fake_runtime import Behaviour
from skerry.testing.memory import MemoryAgentStore
from tests.unit.agent_world import APP, Agent, Upstream

pytestmark = pytest.mark.rollout

FILE = ConfigFile(path="app.json")
SIGNALLED = ConfigUse(files=(FILE,), on_change=OnConfigChange(signal="HUP"))
RESTARTED = ConfigUse(files=(FILE,))


class Host:
    """A host with an application that is well for as long as it is configured with `{"good": true}`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.link = Upstream()
        self.store = MemoryAgentStore()
        self.generation = 0
        self.agent = Agent(data, self.link, store=self.store)

    def release(self, use: ConfigUse | None, *, version: str = "1") -> ReleaseRef:
        """Hold a release whose component `main` is configured, and whose `beside` is not."""
        bundle = Bundle(files=(self.link.add(version.encode(), "run"),))
        probe = Probe(http=HttpProbe(port="http", path="/ready"), period="1s", failures=1)
        main = Component(
            name="main",
            bundle=bundle,
            command=("./run",),
            config=use,
            ports=(Port(name="http", port=8080),),
            probes=Probes(readiness=probe),
        )
        beside = Component(name="beside", bundle=bundle, command=("./run", "beside"))
        spec = ApplicationSpec(version=version, components=(main, beside), config=ApplicationConfig())
        found = Release(application=Application(metadata=Metadata(APP), spec=spec))
        assert not check_release(found)
        document = encode_canonical(found)
        self.link.contents[digest_of(document)] = document
        self.link.signed.vouch(found)
        publisher = self.link.signed.publisher.name
        return ReleaseRef(digest=digest_of(document), size_bytes=len(document), publisher=publisher)

    async def desire(self, ref: ReleaseRef, revision: str, values: dict[str, Any], **more: Any) -> None:
        self.generation += 1
        configured = Configured(revision=revision, values=values)
        await self.agent.desire(self.generation, {"1": ref}, configured=configured, **more)

    def told(self) -> dict[str, Any]:
        """Return what the running component finds in its file."""
        found = list((self.data / "configured").glob(f"{APP}.main.*/files/app.json"))
        assert len(found) == 1
        return dict(json.loads(found[0].read_text()))

    def serve(self) -> None:
        """Answer the probe as the application would."""
        good = any((self.data / "configured").glob("*/files/app.json")) and self.told().get("good", False)
        self.agent.prober.answer(8080, "/ready", None if good else "not ready: bad configuration")

    def runs(self, revision: str) -> bool:
        self.serve()
        view = self.agent.observed.applications.get(APP)
        wanted = (f"{APP}@1#{revision}", "", "running")
        return view is not None and (view.release, view.candidate, view.phase) == wanted

    def refused(self) -> dict[str, str]:
        self.serve()
        view = self.agent.observed.applications.get(APP)
        return view.refused if view else {}

    @property
    def starts(self) -> list[str]:
        return [start.split(".")[1] for start in self.agent.runtime.host.starts]

    async def reboot(self) -> None:
        """End the agent and all that runs, and begin without an upstream."""
        await self.agent.close()
        host = self.agent.runtime.host
        self.agent.runtime.reboot()
        self.agent = Agent(self.data, self.link, store=self.store)
        self.agent.runtime.host = host
        await self.agent.judge()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[Host]:
    made = Host(tmp_path)
    yield made
    await made.agent.close()


async def test_only_the_component_that_says_so_is_restarted_for_another_configuration(host: Host) -> None:
    one = host.release(RESTARTED)
    await host.desire(one, "a", {"good": True, "n": 1})
    await host.agent.until(lambda: host.runs("a"))
    assert sorted(host.starts) == ["beside", "main"]
    await host.desire(one, "b", {"good": True, "n": 2})
    await host.agent.until(lambda: host.runs("b"))
    assert sorted(host.starts) == ["beside", "main", "main"]
    assert host.told() == {"good": True, "n": 2}


async def test_a_component_that_takes_files_while_it_runs_is_told_and_not_restarted(host: Host) -> None:
    one = host.release(SIGNALLED)
    await host.desire(one, "a", {"good": True, "n": 1})
    await host.agent.until(lambda: host.runs("a"))
    await host.desire(one, "b", {"good": True, "n": 2})
    await host.agent.until(lambda: host.runs("b"))
    assert sorted(host.starts) == ["beside", "main"]
    assert [name for _, name in host.agent.runtime.host.signals] == ["SIGHUP"]
    assert host.told()["n"] == 2


@pytest.mark.rule("CONFIG-1")
async def test_a_component_that_answers_wrongly_has_not_taken_its_files_and_gets_the_old_ones_back(
    host: Host,
) -> None:
    change = OnConfigChange(http=HttpProbe(port="http", path="/reload"))
    one = host.release(ConfigUse(files=(FILE,), on_change=change))
    await host.desire(one, "a", {"good": True, "n": 1})
    await host.agent.until(lambda: host.runs("a"))
    host.agent.prober.answer(8080, "POST /reload", "answered 500")
    await host.desire(one, "b", {"good": True, "n": 2})
    await host.agent.until(lambda: bool(host.refused()))
    assert "main did not take what is new: answered 500" in next(iter(host.refused().values()))
    host.agent.prober.answer(8080, "POST /reload", None)
    await host.agent.until(lambda: host.runs("a"))
    assert host.told()["n"] == 1
    await host.desire(one, "c", {"good": True, "n": 3})
    await host.agent.until(lambda: host.runs("c"))
    assert host.told()["n"] == 3


async def test_a_component_that_is_to_be_restarted_is_not_ready_before(host: Host) -> None:
    one = host.release(RESTARTED)
    await host.desire(one, "a", {"good": True, "n": 1})
    await host.agent.until(lambda: host.runs("a"))
    [run] = [run for key, run in host.agent.runtime.host.runs.items() if key.startswith(f"{APP}.main.")]
    run.behaviour = Behaviour(ignores_stop=True)
    await host.desire(one, "b", {"good": True, "n": 2})
    for _ in range(8):
        host.serve()
        await host.agent.steps(1)
        assert not host.runs("b")
        assert host.told()["n"] == 1, "what still runs finds what it was started with"
    await host.agent.until(lambda: host.runs("b"))


async def test_a_revision_that_changes_nothing_here_disturbs_nobody(host: Host) -> None:
    one = host.release(SIGNALLED)
    await host.desire(one, "a", {"good": True})
    await host.agent.until(lambda: host.runs("a"))
    await host.desire(one, "b", {"good": True})
    await host.agent.until(lambda: host.runs("b"))
    assert sorted(host.starts) == ["beside", "main"]
    assert not host.agent.runtime.host.signals


@pytest.mark.rule("CONFIG-1")
@pytest.mark.parametrize("use", (RESTARTED, SIGNALLED), ids=["restart", "signal"])
async def test_a_configuration_that_fails_is_refused_and_the_last_good_one_restored(
    host: Host, use: ConfigUse
) -> None:
    one = host.release(use)
    await host.desire(one, "a", {"good": True})
    await host.agent.until(lambda: host.runs("a"))
    await host.desire(one, "b", {"good": False})
    await host.agent.until(lambda: bool(host.refused()), what="refused")
    [(edition, why)] = host.refused().items()
    assert edition.startswith(str(one.digest)) and "bad configuration" in why
    await host.agent.until(lambda: host.runs("a"), what="the good one again")
    assert host.told() == {"good": True}
    starts = len(host.starts)
    await host.agent.steps(10)
    assert len(host.starts) == starts
    # Another revision is another candidate.
    await host.desire(one, "c", {"good": True, "n": 3})
    await host.agent.until(lambda: host.runs("c"))
    assert host.told()["n"] == 3


@pytest.mark.rule("CONFIG-2")
@pytest.mark.parametrize("use", (RESTARTED, SIGNALLED), ids=["restart", "signal"])
async def test_a_reboot_without_a_link_keeps_the_last_good_configuration(host: Host, use: ConfigUse) -> None:
    one = host.release(use)
    await host.desire(one, "a", {"good": True})
    await host.agent.until(lambda: host.runs("a"))
    await host.desire(one, "b", {"good": False})
    await host.agent.until(lambda: not host.told()["good"], what="the bad one on trial")
    await host.reboot()
    await host.agent.until(lambda: bool(host.refused()), what="refused after the reboot")
    await host.agent.until(lambda: host.runs("a"), what="the good one after the reboot")
    await host.reboot()
    await host.agent.until(lambda: host.runs("a"), what="the good one after another reboot")
    assert host.told() == {"good": True}


async def test_a_configuration_that_was_damaged_on_disk_is_taken_from_what_is_desired(host: Host) -> None:
    one = host.release(RESTARTED)
    await host.desire(one, "a", {"good": True})
    await host.agent.until(lambda: host.runs("a"))
    [kept] = (host.data / "configurations").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"true", b"null"))
    await host.reboot()
    await host.agent.until(lambda: host.runs("a"))
    assert host.told() == {"good": True}


async def test_what_only_the_host_knows_is_filled_there(host: Host) -> None:
    use = ConfigUse(files=(FILE,), env={"LISTEN": "listen"})
    one = host.release(use)
    await host.desire(one, "a", {"good": True, "listen": "0.0.0.0:${port.http}", "raw": "$${port.http}"})
    await host.agent.until(lambda: host.runs("a"))
    assert host.told()["listen"] == "0.0.0.0:8080"
    assert host.told()["raw"] == "${port.http}"
    [run] = [run for key, run in host.agent.runtime.host.runs.items() if key.startswith(f"{APP}.main.")]
    assert run.spec.env["LISTEN"] == "0.0.0.0:8080"
    assert run.spec.env["SKERRY_CONFIG"].endswith("/files")


async def test_a_variable_of_a_signalled_component_restarts_it_when_its_value_changes(host: Host) -> None:
    use = ConfigUse(files=(FILE,), env={"N": "n"}, on_change=OnConfigChange(signal="HUP"))
    one = host.release(use)
    await host.desire(one, "a", {"good": True, "n": 1})
    await host.agent.until(lambda: host.runs("a"))
    await host.desire(one, "b", {"good": True, "n": 1, "m": 1})
    await host.agent.until(lambda: host.runs("b"))
    assert host.starts.count("main") == 1
    await host.desire(one, "c", {"good": True, "n": 2, "m": 1})
    await host.agent.until(lambda: host.runs("c"))
    assert host.starts.count("main") == 2


async def test_a_reference_that_has_no_value_on_the_host_is_refused_and_named(host: Host) -> None:
    one = host.release(RESTARTED)
    await host.desire(one, "a", {"good": True})
    await host.agent.until(lambda: host.runs("a"))
    await host.desire(one, "b", {"good": True, "x": "${binding.camera.url}"})
    await host.agent.until(lambda: bool(host.refused()))
    assert "${binding.camera.url}" in next(iter(host.refused().values()))
    await host.agent.until(lambda: host.runs("a"))


async def test_a_configured_release_without_a_configuration_is_refused(host: Host) -> None:
    one = host.release(RESTARTED)
    host.generation += 1
    await host.agent.desire(host.generation, {"1": one})
    await host.agent.until(lambda: bool(host.refused()))
    assert next(iter(host.refused().values())) == "it came without a configuration"


async def test_configurations_that_nothing_names_are_removed(host: Host) -> None:
    one = host.release(SIGNALLED)
    for number in range(5):
        await host.desire(one, f"r{number}", {"good": True, "n": number})
        await host.agent.until(partial(host.runs, f"r{number}"))
    await host.agent.steps(3)
    assert len(list((host.data / "configurations").iterdir())) <= 3
