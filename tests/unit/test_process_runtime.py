"""What real components are given, how they end, and what a full disk costs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from skerry.adapters.process_execute import find_executable
from skerry.adapters.process_limits import confine, enable_controllers, find_cgroup_root
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.runtime import InstanceSpec, InstanceView, Limits
from skerry.testing.process_host import FOR_EVER, PATH, ProcessHost
from skerry.testing.processes import processes_of
from skerry.testing.waiting import eventually, eventually_sync


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[ProcessHost]:
    """A host on which nothing is left running after the test."""
    made = ProcessHost(tmp_path)
    yield made
    await made.clear()


def proc_text(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")


# -- what a component is given --------------------------------------------------------------------------


async def test_environment_and_directory_are_exactly_those_stated(host: ProcessHost) -> None:
    env = {"PATH": PATH, "A": "x y $HOME", "LANG": "ü", "EMPTY": ""}
    spec = InstanceSpec(id="one", command=("sleep", "3600"), env=env, directory=host.work)
    await host.runtime.start(spec)
    pid = (await host.view()).pid
    # Empty for a moment: the kernel lets `start` go on a little before it has laid out the new program.
    variables = eventually_sync(lambda: proc_text(pid, "environ")).rstrip("\0").split("\0")
    assert dict(variable.split("=", 1) for variable in variables) == env
    assert set(processes_of(host.work)) == {pid}


async def test_no_descriptor_but_the_three_is_open_in_the_component(host: ProcessHost) -> None:
    await host.start("sleep", "3600")
    files = Path(f"/proc/{(await host.view()).pid}/fd")

    def targets() -> dict[str, str]:
        return {link.name: str(link.readlink()) for link in files.iterdir()}

    # The loader of a dynamic program has its libraries open for a moment.
    eventually_sync(lambda: len(targets()) == 3)
    pipe = f"pipe:[{host.keeper().pipe}]"
    assert targets() == {"0": "/dev/null", "1": pipe, "2": pipe}


async def test_no_shell_reads_the_command(host: ProcessHost) -> None:
    await host.start("echo", "$HOME", "`id`;", "a  b", "*")
    assert await host.has_printed(b"\n") == b"$HOME `id`; a  b *\n"


async def test_signals_are_neither_ignored_nor_blocked_in_the_component(host: ProcessHost) -> None:
    await host.start("sleep", "3600")
    status = proc_text((await host.view()).pid, "status")
    masks = {line.split()[0]: line.split()[1] for line in status.splitlines() if line.startswith("Sig")}
    # 32 and 33 belong to the C library, which leaves them as whoever started the tests had them.
    reserved = 1 << 31 | 1 << 32
    assert int(masks["SigIgn:"], 16) & ~reserved == 0
    assert int(masks["SigBlk:"], 16) & ~reserved == 0


def test_a_folder_of_the_path_that_cannot_be_entered_is_passed_over(tmp_path: Path) -> None:
    # A link to itself cannot be entered by anybody, root included.
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = f"{tmp_path / 'loop'}:/usr/bin:/bin"
    found, allowed = find_executable("sh", env={"PATH": path}, directory=tmp_path)
    assert found is not None
    assert allowed


async def test_a_command_with_a_slash_is_relative_to_the_directory(host: ProcessHost) -> None:
    script = host.work / "run.sh"
    script.write_text("#!/bin/sh\necho here\n", encoding="utf-8")
    with pytest.raises(Rejected) as caught:
        await host.start("./run.sh")
    assert caught.value.code == "runtime.not_executable"
    script.chmod(0o755)
    await host.start("./run.sh")
    await host.has_printed(b"here")


@pytest.mark.parametrize(
    ("content", "code"),
    (
        ("#!/no/such/interpreter\n", "runtime.command_missing"),
        ("no format anybody knows\n", "runtime.not_executable"),
    ),
)
async def test_what_the_kernel_cannot_execute_is_rejected(host: ProcessHost, content: str, code: str) -> None:
    script = host.work / "run"
    script.write_text(content, encoding="utf-8")
    script.chmod(0o755)
    with pytest.raises(Rejected) as caught:
        await host.start("./run")
    assert caught.value.code == code
    assert await host.runtime.instances() == {}
    assert processes_of(host.instances) == {}


async def test_a_specification_that_cannot_be_is_rejected(host: ProcessHost) -> None:
    specs = (
        (host.spec(FOR_EVER, "../one"), "runtime.id_invalid"),
        (host.spec(FOR_EVER, ".one"), "runtime.id_invalid"),
        (host.spec(FOR_EVER, ""), "runtime.id_invalid"),
        (host.spec(("sh", "a\0b")), "runtime.command_invalid"),
        (
            InstanceSpec(id="a", command=FOR_EVER, env={"A=": "b"}, directory=host.work),
            "runtime.command_invalid",
        ),
        (
            InstanceSpec(id="a", command=FOR_EVER, env={}, directory=host.work / "no"),
            "runtime.directory_missing",
        ),
    )
    for spec, code in specs:
        with pytest.raises(Rejected) as caught:
            await host.runtime.start(spec)
        assert caught.value.code == code
    assert await host.runtime.instances() == {}


async def test_the_files_are_for_their_owner_only(host: ProcessHost) -> None:
    await host.start()
    for path in ((host.instances / "one"), *(host.instances / "one").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


# -- ends -----------------------------------------------------------------------------------------------


async def test_grandchildren_end_with_the_component_also_those_that_left_its_session(
    host: ProcessHost,
) -> None:
    await host.start("sh", "-c", "sleep 3600 & setsid sleep 3600 & sleep 0.1; echo ready; exit 5")
    assert (await host.reaches("exited")).exit_code == 5
    assert host.components() == set()


async def test_stop_reaches_the_whole_group(host: ProcessHost) -> None:
    child = "(trap 'echo heard; exit' TERM; echo ready; while :; do sleep 0.02; done)"
    await host.start("sh", "-c", f"trap true TERM; {child} & while :; do sleep 0.02; done")
    await host.has_printed(b"ready")
    await host.runtime.stop("one", signal="SIGTERM", grace_s=0.5)
    await host.reaches("exited")
    assert b"heard" in await host.runtime.logs("one", tail_bytes=1000)
    assert host.components() == set()


async def test_a_keeper_that_is_terminated_stops_its_component_first(host: ProcessHost) -> None:
    await host.start("sh", "-c", "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.02; done")
    await host.has_printed(b"ready")
    os.kill(host.keeper().keeper.pid, signal.SIGTERM)
    assert (await host.reaches("exited")).exit_code == 4
    assert (await host.runtime.logs("one", tail_bytes=100)).endswith(b"bye\n")


async def test_a_component_that_closes_its_output_goes_on(host: ProcessHost) -> None:
    await host.start("sh", "-c", "echo ready; exec sleep 0.3 >&- 2>&-")
    await host.has_printed(b"ready")
    assert (await host.view()).state == "running"
    assert (await host.reaches("exited")).exit_code == 0


async def test_the_log_files_stay_within_the_limit_and_outlive_a_restart(host: ProcessHost) -> None:
    limits = Limits(log_bytes=64 << 10)
    await host.runtime.start(host.spec(("sh", "-c", "head -c 5000000 /dev/zero; echo first"), limits=limits))
    await host.reaches("exited")
    sizes = [(host.instances / "one" / name).stat().st_size for name in ("log", "log.1")]
    assert max(sizes) <= 32 << 10
    await host.runtime.start(host.spec(("echo", "second"), limits=limits))
    assert (await host.has_printed(b"second")).endswith(b"first\nsecond\n")


# -- limits ---------------------------------------------------------------------------------------------


async def test_a_component_over_its_memory_limit_ends(host: ProcessHost) -> None:
    command = (sys.executable, "-I", "-S", "-c", "x = bytearray(200 << 20); print('had it all')")
    limits = Limits(memory_bytes=64 << 20, cpus=0.5)
    await host.runtime.start(host.spec(command, limits=limits))
    seen = await host.reaches("exited")
    assert seen.exit_code == 1
    assert seen.limits == {"memory": "rlimit_data", "cpu": "none"}
    assert b"MemoryError" in await host.runtime.logs("one", tail_bytes=1000)


async def test_a_delegated_cgroup_is_set_up_and_entered_before_the_command(host: ProcessHost) -> None:
    """A plain directory stands in for the cgroup file system; what is written there is what counts."""
    root = host.place / "cgroup"
    root.mkdir()
    runtime = ProcessRuntime(host.instances, cgroup_root=root)
    limits = Limits(memory_bytes=512 << 20, cpus=0.25)
    await runtime.start(host.spec(FOR_EVER, limits=limits))
    assert (await runtime.instances())["one"].limits == {"memory": "cgroup2", "cpu": "cgroup2"}
    written = {file.name: file.read_text(encoding="ascii") for file in (root / "skerry-one").iterdir()}
    assert written["memory.max"] == str(512 << 20)
    assert written["memory.swap.max"] == "0"
    assert written["cpu.max"] == "25000 100000"
    assert written["cgroup.procs"] == "0"
    assert "Max data size             unlimited" in proc_text((await host.view()).pid, "limits")


def test_without_a_usable_cgroup_the_weaker_mechanism_is_named(tmp_path: Path) -> None:
    missing = confine(tmp_path / "no", "one", Limits(memory_bytes=1, cpus=1))
    assert (missing.mechanisms, missing.cgroup) == ({"memory": "rlimit_data", "cpu": "none"}, "")
    assert confine(tmp_path, "one", Limits()).mechanisms == {}
    assert not enable_controllers(tmp_path)
    found = find_cgroup_root()
    assert found is None or found.is_dir()


def test_controllers_are_enabled_only_where_they_are_not(tmp_path: Path) -> None:
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("memory io\n", encoding="ascii")
    assert enable_controllers(tmp_path)
    assert control.read_text(encoding="ascii") == "+cpu"


async def test_the_keeper_is_small(host: ProcessHost) -> None:
    await host.start()
    await host.has_printed(b"ready")
    text = proc_text(host.keeper().keeper.pid, "smaps_rollup")
    sizes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    assert sizes["Private_Dirty:"] < 5000
    assert sizes["Rss:"] < 14000


# -- a full disk ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


async def test_a_start_on_a_full_disk_is_for_later_and_leaves_nothing(
    host: ProcessHost, small_disk: Path
) -> None:
    runtime = ProcessRuntime(small_disk / "instances")
    fill(small_disk)
    with pytest.raises(Unavailable) as caught:
        await runtime.start(host.spec(FOR_EVER))
    assert caught.value.code == "disk.full"
    assert await runtime.instances() == {}
    assert host.components() == set()
    (small_disk / "ballast").unlink()
    await runtime.start(host.spec(FOR_EVER))
    assert (await runtime.instances())["one"].state == "running"
    await runtime.remove("one")


async def test_a_disk_that_fills_up_costs_log_lines_only(host: ProcessHost, small_disk: Path) -> None:
    runtime = ProcessRuntime(small_disk / "instances")
    chatty = "trap 'exit 6' TERM; while :; do echo line; head -c 9000 /dev/zero; sleep 0.01; done"
    await runtime.start(host.spec(("sh", "-c", chatty)))
    fill(small_disk)
    before = len(await runtime.logs("one", tail_bytes=1 << 20))
    usage = host.components()
    await runtime.stop("one", signal="SIGUSR2", grace_s=3600)
    assert usage
    await runtime.stop("one", signal="SIGTERM", grace_s=20)

    async def ended() -> InstanceView | None:
        seen = (await runtime.instances())["one"]
        return seen if seen.state == "exited" else None

    assert (await eventually(ended)).exit_code in (6, -signal.SIGUSR2)
    assert len(await runtime.logs("one", tail_bytes=1 << 20)) >= min(before, 1)
    await runtime.remove("one")
