"""Nothing is doubled, forgotten or taken for ours: killed keepers and agents, reused numbers, bad files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.process_folder import InstanceFolder, KeeperFile, StopFile
from skerry.adapters.process_identity import ProcessMark, boot_id, read_stat
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.testing.process_host import FOR_EVER, ProcessHost
from skerry.testing.processes import is_running, processes_of
from skerry.testing.waiting import eventually, eventually_sync


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[ProcessHost]:
    """A host on which nothing is left running after the test."""
    made = ProcessHost(tmp_path)
    yield made
    await made.clear()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, and must live."""
    process = subprocess.Popen(["sleep", "3600"], start_new_session=True, cwd="/")
    yield process
    assert process.poll() is None, "a stranger was killed"
    process.kill()
    process.wait()


def rewrite(folder: InstanceFolder, keeper: KeeperFile) -> None:
    folder.keeper.path.write_bytes(msgspec.json.encode(keeper))


# -- a killed keeper ------------------------------------------------------------------------------------


async def test_the_component_dies_with_its_keeper_and_is_lost(host: ProcessHost) -> None:
    await host.start("sleep", "3600")
    keeper = host.kill_keeper()
    eventually_sync(lambda: not is_running(keeper.child.pid))
    seen = await host.view()
    assert (seen.state, seen.exit_code, seen.pid) == ("lost", None, 0)
    await host.start("sleep", "3600")
    assert (await host.view()).state == "running"
    assert host.components() == {(await host.view()).pid}


async def test_grandchildren_of_a_killed_keeper_are_found_and_killed(host: ProcessHost) -> None:
    # One keeps the log's pipe, one the directory; the shell that led them dies with the keeper.
    script = "(cd /; exec sleep 3600) & sleep 3600 >/dev/null 2>&1 & echo ready; wait"
    await host.start("sh", "-c", script)
    await host.has_printed(b"ready")
    keeper = host.kill_keeper()
    eventually_sync(lambda: not is_running(keeper.child.pid))
    assert (await host.view()).state == "lost"
    eventually_sync(lambda: not _session(keeper.child.pid))


def _session(number: int) -> set[int]:
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    stats = [read_stat(pid) for pid in numbers]
    return {seen.pid for seen in stats if seen and seen.session == number and seen.state not in "ZX"}


# Takes back that it dies with its parent, as the start of a set-user-id program does.
UNTIE = """
import ctypes, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("then", ("look", "start", "remove"))
async def test_a_component_that_outlives_its_keeper_is_killed_and_never_doubled(
    host: ProcessHost, then: str
) -> None:
    await host.start(sys.executable, "-c", UNTIE)
    await host.has_printed(b"ready")
    keeper = host.kill_keeper()
    assert is_running(keeper.child.pid)
    fresh = ProcessRuntime(host.instances)
    if then == "look":
        assert (await fresh.instances())["one"].state == "lost"
    elif then == "start":
        await fresh.start(host.spec(FOR_EVER))
    else:
        await fresh.remove("one")
    eventually_sync(lambda: not is_running(keeper.child.pid))
    assert len(host.components()) == (1 if then == "start" else 0)


# -- identity -------------------------------------------------------------------------------------------


async def test_a_recycled_number_is_not_taken_for_ours(
    host: ProcessHost, stranger: subprocess.Popen[bytes]
) -> None:
    await host.start()
    keeper = host.kill_keeper()
    # Ours began long before; all that is later in that session could be ours by its time.
    forged = ProcessMark(stranger.pid, 1)
    rewrite(host.folder(), msgspec.structs.replace(keeper, keeper=forged, child=forged))
    assert (await host.view()).state == "lost"
    await host.runtime.stop("one", signal="SIGKILL", grace_s=0)
    await host.start()
    rewrite(host.folder(), msgspec.structs.replace(host.keeper(), keeper=forged, child=forged))
    assert (await host.view()).state == "running"
    await host.runtime.stop("one", signal="SIGTERM", grace_s=20)
    await host.reaches("exited")
    rewrite(host.folder(), msgspec.structs.replace(host.keeper(), keeper=forged, child=forged))
    await host.runtime.remove("one")
    assert host.components() == set()


@pytest.fixture
def strangers_child() -> Iterator[tuple[int, int]]:
    """(session, number) of a stranger's process, whose session's leader has died: it must live."""
    script = "sleep 3600 >/dev/null & echo $!"
    leader = subprocess.Popen(["sh", "-c", script], start_new_session=True, cwd="/", stdout=subprocess.PIPE)
    child = int(leader.communicate()[0])
    yield leader.pid, child
    assert is_running(child), "a stranger was killed"
    os.kill(child, signal.SIGKILL)


async def test_a_strangers_child_in_a_recycled_session_is_left_alone(
    host: ProcessHost, strangers_child: tuple[int, int]
) -> None:
    """All that tells it apart is that neither pipe nor directory ties it to us."""
    await host.start()
    keeper = host.kill_keeper()
    forged = ProcessMark(strangers_child[0], 1)
    rewrite(host.folder(), msgspec.structs.replace(keeper, child=forged))
    assert (await ProcessRuntime(host.instances).instances())["one"].state == "lost"
    await host.start()
    await host.runtime.remove("one")


async def test_after_a_reboot_everything_is_lost_and_nobody_is_killed(
    host: ProcessHost, stranger: subprocess.Popen[bytes]
) -> None:
    await host.start()
    keeper = host.kill_keeper()
    seen = read_stat(stranger.pid)
    assert seen is not None
    # Number and start time are a living process's, but of another boot.
    mark = ProcessMark(stranger.pid, seen.start)
    rewrite(host.folder(), msgspec.structs.replace(keeper, boot_id="earlier", keeper=mark, child=mark))
    fresh = ProcessRuntime(host.instances)
    assert (await fresh.instances())["one"].state == "lost"
    await fresh.stop("one", signal="SIGKILL", grace_s=0)
    await fresh.start(host.spec(FOR_EVER))
    assert (await host.view()).state == "running"
    assert host.keeper().boot_id == boot_id()


@pytest.mark.parametrize("content", (b"", b"{", b'{"run": 1}', b"\xff\xfe\0", b"[" * 2000))
@pytest.mark.parametrize("name", ("spec.json", "keeper.json", "exit.json", "stop.json"))
async def test_damaged_files_never_hide_the_others(host: ProcessHost, name: str, content: bytes) -> None:
    await host.start(name="live")
    await host.start(name="dead")
    await host.start(name="fine")
    host.kill_keeper("dead")
    for instance in ("live", "dead"):
        (host.instances / instance / name).write_bytes(content)
    views = await ProcessRuntime(host.instances).instances()
    assert {key: view.state for key, view in views.items()} == {
        "live": "running",
        "dead": "lost",
        "fine": "running",
    }
    await host.start(name="live")
    await host.start(name="dead")
    await host.runtime.remove("live")
    assert len(host.components()) == 2


async def test_an_empty_folder_is_lost_and_can_be_started(host: ProcessHost) -> None:
    (host.instances / "one").mkdir(parents=True)
    (host.instances / "stray-file").touch()
    assert {name: view.state for name, view in (await host.runtime.instances()).items()} == {"one": "lost"}
    await host.start()
    assert (await host.view()).state == "running"


# -- a killed agent -------------------------------------------------------------------------------------

AGENT = """
import asyncio, sys
from pathlib import Path
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.ports.runtime import InstanceSpec

async def main(instances, work, python, *script):
    runtime = ProcessRuntime(Path(instances), python=python)
    env = {"PATH": "/usr/bin:/bin"}
    spec = InstanceSpec(id="one", command=("sh", "-c", script[0]), env=env, directory=Path(work))
    print("go", flush=True)
    await runtime.start(spec)
    if len(script) > 1:
        await runtime.stop("one", signal="SIGTERM", grace_s=float(script[1]))
    print("done", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


SOURCE = str(Path(__file__).parents[2] / "src")


class Agent:
    """A process of its own that starts one instance and can be killed."""

    def __init__(self, host: ProcessHost, *script: str, python: str = sys.executable) -> None:
        arguments = (str(host.instances), str(host.work), python, *(script or (FOR_EVER[2],)))
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, *arguments],
            stdout=subprocess.PIPE,
            cwd="/",
            env={"PYTHONPATH": SOURCE},
            start_new_session=True,
        )

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word.encode() + b"\n"

    def kill(self) -> None:
        # With all of its group, as a terminal or a service manager would.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


async def test_what_a_killed_agent_started_is_adopted(host: ProcessHost) -> None:
    agent = Agent(host, "echo ready; while [ ! -e end ]; do sleep 0.02; done; exit 9")
    agent.says("go")
    agent.says("done")
    agent.kill()
    before = await host.view()
    assert before.state == "running"
    await host.start()
    assert await host.view() == before
    (host.work / "end").touch()
    assert (await host.reaches("exited")).exit_code == 9


async def test_a_stop_outlives_the_agent_that_asked_for_it(host: ProcessHost) -> None:
    agent = Agent(host, "trap '' TERM; echo ready; while :; do sleep 0.02; done", "1.0")
    agent.says("go")
    agent.says("done")
    agent.kill()
    assert host.components()
    # Nobody asks the runtime meanwhile: the keeper alone keeps the time.
    eventually_sync(lambda: not host.components())
    assert (await host.reaches("exited")).exit_code in (-signal.SIGKILL, -signal.SIGTERM)


async def test_a_stop_that_was_written_but_not_told_is_told_by_the_next_agent(host: ProcessHost) -> None:
    await host.start()
    await host.has_printed(b"ready")
    request = StopFile(run=host.keeper().run, signal=signal.SIGINT, deadline=1e9)
    host.folder().ask_stop(request)
    assert (await ProcessRuntime(host.instances).instances())["one"].state == "stopping"
    assert (await host.reaches("exited")).exit_code == -signal.SIGINT


@pytest.fixture
def slow_python(host: ProcessHost) -> str:
    """An interpreter that says when it was called and waits for leave to go on."""
    script = host.place / "python"
    script.write_text(
        f'#!/bin/sh\ntouch "{host.place}/called"\n'
        f'while [ ! -e "{host.place}/leave" ]; do sleep 0.01; done\nexec {sys.executable} "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    return str(script)


async def test_an_agent_killed_while_its_keeper_begins_leaves_one_instance(
    host: ProcessHost, slow_python: str
) -> None:
    agent = Agent(host, python=slow_python)
    eventually_sync((host.place / "called").exists)
    agent.kill()
    # What begins holds the lock already, so a second start must leave it be.
    assert (await host.view()).state == "running"
    await host.start()
    assert host.components() == set()
    (host.place / "leave").touch()
    await host.has_printed(b"ready")
    assert host.components() == {(await host.view()).pid}


async def test_an_agent_killed_together_with_its_beginning_keeper_leaves_nothing(
    host: ProcessHost, slow_python: str
) -> None:
    agent = Agent(host, python=slow_python)
    eventually_sync((host.place / "called").exists)
    agent.kill()

    def kill_all() -> bool:
        for pid in processes_of(host.place):
            os.kill(pid, signal.SIGKILL)
        return not processes_of(host.place)

    eventually_sync(kill_all)
    # The script's last `sleep` has inherited the lock, and needs a moment.
    await host.reaches("lost")
    await host.start()
    assert host.components() == {(await host.view()).pid}


@pytest.mark.parametrize("delay_ms", (0, 2, 4, 6, 8, 10, 13, 16, 20, 25, 30, 40))
async def test_an_agent_killed_at_any_moment_never_doubles_an_instance(
    host: ProcessHost, delay_ms: int
) -> None:
    agent = Agent(host, "echo $$ >> ../starts; echo ready; exec sleep 3600")
    agent.says("go")
    try:
        agent.process.wait(delay_ms / 1000)
    except subprocess.TimeoutExpired:
        agent.kill()
    (host.place / "killed").touch()
    again = host.spec(("sh", "-c", "echo $$ >> ../starts; echo ready; exec sleep 3600"))
    await host.runtime.start(again)

    async def is_whole() -> bool:
        seen = await host.view()
        return seen.state == "running" and seen.pid > 0 and host.components() == {seen.pid}

    await eventually(is_whole, what="one component")
    await host.has_printed(b"ready")
    starts = (host.place / "starts").read_text(encoding="ascii").split()
    assert [pid for pid in map(int, starts) if is_running(pid)] == [(await host.view()).pid]
    assert len(starts) == 1


async def test_two_runtimes_that_start_the_same_at_once_start_it_once(host: ProcessHost) -> None:
    agents = [Agent(host, "echo x >> ../starts; echo ready; exec sleep 3600") for _ in range(3)]
    for agent in agents:
        agent.says("go")
        agent.says("done")
    await host.has_printed(b"ready")
    assert (host.place / "starts").read_text(encoding="ascii") == "x\n"
    for agent in agents:
        agent.kill()
    assert len(host.components()) == 1
