"""Facts of recorded machines: what each detector finds, and that nothing in a tree can break it."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from skerry.adapters.facts import HostDetector, read_facts
from skerry.adapters.facts.asking import Answer, Question
from skerry.adapters.facts.processor import arm_level, kept_flags, model_name, x86_level
from skerry.adapters.facts.tree import Tree, parse_number
from skerry.kit.canonical import encode_canonical
from skerry.spec.fact_names import FACT_NAMES, find_fact_name
from skerry.spec.facts import FactValue, HostFacts
from tests.unit.machines import FOLDER, MACHINES, Unpacked, unpack

GIB = 1 << 30
ROOT = Path(__file__).resolve().parents[2]

EXPECTED: dict[str, dict[str, FactValue | None]] = {
    "jetson-orin": {
        "arch": "aarch64",
        "arch_level": "armv8.2-a",
        "cpu_model": "Arm Cortex-A78AE",
        "cpu_count": 12,
        "cpu_cores": 12,
        "machine": "NVIDIA Jetson AGX Orin Developer Kit",
        "memory_bytes": 64348176 * 1024,
        "disk.class": "emmc",
        "jetson.l4t": "36.3.0",
        "accelerators": ("jetson",),
        "accelerator.jetson.devices": ("/dev/nvhost-gpu",),
        "gpu.count": 1,
        "gpu.0.vendor": "nvidia",
        "gpu.0.compute": "8.7",
        "gpu.0.memory_bytes": 64348176 * 1024,
        "gpu.0.shared_memory": True,
        "gpu.0.driver": "540.3.0",
        "runtime.tensorrt": "8.6.2",
        "devices.camera": ("/dev/video0",),
        "camera.names": ("video0 HD Pro Webcam C920",),
        "devices.serial": ("/dev/ttyTCU0", "/dev/ttyTHS1"),
        "devices.can": ("can0",),
        "devices.i2c": ("/dev/i2c-0", "/dev/i2c-1", "/dev/i2c-2", "/dev/i2c-10"),
        "devices.spi": ("/dev/spidev0.0",),
        "devices.gpio": ("/dev/gpiochip0", "/dev/gpiochip1"),
        "devices.cdi": ("nvidia.com/gpu=0", "nvidia.com/gpu=all"),
        "problems": None,
    },
    "coral-box": {
        "arch_level": "x86-64-v2",
        "machine": "AZW Gemini J45",
        "disk.class": "ssd",
        "accelerators": ("coral-usb", "intel-gpu"),
        "accelerator.coral-usb.devices": ("/dev/bus/usb/001/007",),
        "devices.tpu": ("/dev/bus/usb/001/007",),
        "devices.usb": ("1a6e:089a", "0403:6001 FTDI FT232R USB UART"),
        "devices.serial": ("/dev/ttyS0", "/dev/ttyUSB0"),
        "devices.camera": (),
        "gpu.0.memory_bytes": None,
        "os": "debian",
        "os_version": "12",
        "problems": None,
    },
    "intel-nuc": {
        "arch_level": "x86-64-v3",
        "cpu_model": "Intel(R) Core(TM) Ultra 7 155H",
        "cpu_count": 22,
        "cpu_cores": 16,
        "disk.class": "nvme",
        "accelerators": ("intel-gpu", "intel-npu"),
        "accelerator.intel-npu.devices": ("/dev/accel/accel0",),
        "devices.npu": ("/dev/accel/accel0",),
        "devices.gpu": ("/dev/dri/renderD128",),
        "gpu.count": 1,
        "gpu.0.vendor": "intel",
        "gpu.0.name": "Intel 8086:7d55",
        "gpu.0.bus": "0000:00:02.0",
        "devices.camera": ("/dev/video0",),
        "devices.serial": (),
        "link.metered": None,
        "problems": None,
    },
    "two-gpus": {
        "arch": "x86_64",
        "arch_level": "x86-64-v4",
        "cpu_count": 64,
        "cpu_cores": 32,
        "disk.class": "hdd",
        "machine": "Dell Inc. PowerEdge R760",
        "accelerators": ("nvidia-gpu",),
        "accelerator.nvidia-gpu.devices": ("/dev/nvidia0", "/dev/nvidia1"),
        "gpu.count": 2,
        "gpu.cuda": "12.4",
        "gpu.1.vendor": "nvidia",
        "gpu.1.name": "NVIDIA L4",
        "gpu.1.memory_bytes": 23034 << 20,
        "gpu.1.compute": "8.9",
        "gpu.1.driver": "550.54.15",
        "gpu.1.device": "/dev/nvidia1",
        "devices.cdi": ("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"),
        "problems": ("NVIDIA GPU 10de:2236 at 0000:b1:00.0 is not usable: vfio-pci holds it",),
    },
    "raspberry-pi-5": {
        "arch": "aarch64",
        "arch_level": "armv8.2-a",
        "cpu_model": "Arm Cortex-A76",
        "machine": "Raspberry Pi 5 Model B Rev 1.0",
        "disk.class": "sd",
        "accelerators": ("hailo-8l",),
        "accelerator.hailo-8l.devices": ("/dev/hailo0",),
        "devices.npu": ("/dev/hailo0",),
        "gpu.count": 0,
        "devices.camera": ("/dev/video0",),
        "camera.names": ("video0 rp1-cfe-csi2_ch0",),
        "devices.gpio": ("/dev/gpiochip0", "/dev/gpiochip4", "/dev/gpiochip10"),
        "devices.usb": (),
        "problems": None,
    },
    "mobile-gateway": {
        "arch_level": "x86-64-v2",
        "machine": "AAEON BOXER-6406-EHL",
        "disk.class": "emmc",
        "link.metered": True,
        "devices.usb": ("2c7c:0125 Quectel EG25-G",),
        "devices.serial": ("/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/ttyUSB2", "/dev/ttyUSB3"),
        "devices.can": (),
        "problems": None,
    },
    "virtual-machine": {
        "arch": "x86_64",
        "arch_level": "x86-64-v4",
        "accelerators": (),
        "gpu.count": 0,
        "disk.class": None,
        "devices.serial": ("/dev/ttyS0",),
        "hostname": "builder",
        "problems": None,
    },
}


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Unpacked:
    return unpack(request.param, tmp_path)


def facts_of(machine: Unpacked) -> HostFacts:
    # Recorded mount tables say where `/data` lies; a data directory below the tree lies on the test's own disk.
    return read_facts(machine.root, data=machine.data, ask=machine.ask)


def values(facts: HostFacts) -> dict[str, FactValue]:
    return {name: fact.value for name, fact in facts.items()}


@pytest.mark.parametrize(
    ("machine", "name"), tuple(zip(MACHINES, MACHINES, strict=True)), indirect=["machine"]
)
def test_a_recorded_machine_has_the_facts_that_its_maker_states(machine: Unpacked, name: str) -> None:
    found = values(facts_of(machine))
    assert {fact: found.get(fact) for fact in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_every_fact_of_a_machine_is_in_the_table_with_its_type_and_names_its_source(
    machine: Unpacked,
) -> None:
    kinds: dict[str, type] = {"text": str, "number": int, "size": int, "flag": bool, "list": tuple}
    for name, fact in facts_of(machine).items():
        entry = find_fact_name(name)
        assert entry is not None, name
        assert type(fact.value) is kinds[entry.kind], name
        assert fact.source, name


@pytest.mark.parametrize("machine", ("two-gpus",), indirect=True)
def test_without_nvml_the_drivers_files_still_name_the_gpus_but_neither_memory_nor_compute(
    machine: Unpacked,
) -> None:
    found = values(read_facts(machine.root, ask=lambda question, key: {"problem": "no NVML here"}))
    assert found["gpu.count"] == 2
    assert found["gpu.0.name"] == "NVIDIA L4"
    assert found["gpu.0.driver"] == "550.54.15"
    assert found["gpu.1.device"] == "/dev/nvidia1"
    assert "gpu.0.memory_bytes" not in found
    assert "NVIDIA: no NVML here" in str(found["problems"])


@pytest.mark.parametrize("machine", ("two-gpus",), indirect=True)
def test_a_gpu_that_only_nouveau_holds_is_a_problem_and_no_gpu(machine: Unpacked) -> None:
    for address in ("0000:17:00.0", "0000:65:00.0"):
        driver = machine.root / "sys/bus/pci/devices" / address / "driver"
        driver.unlink()
        driver.symlink_to("../../../bus/pci/drivers/nouveau")
        (machine.root / f"proc/driver/nvidia/gpus/{address}/information").unlink()
    for path in sorted((machine.root / "proc/driver/nvidia").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (machine.root / "proc/driver/nvidia").rmdir()
    found = values(facts_of(machine))
    assert found["gpu.count"] == 0
    assert found["accelerators"] == ()
    assert "0000:17:00.0 is not usable: nouveau holds it" in str(found["problems"])


@pytest.mark.parametrize("machine", ("raspberry-pi-5",), indirect=True)
@pytest.mark.parametrize(
    ("answer", "kinds"),
    (
        ({}, ("hailo-8l",)),
        ({"0001:01:00.0": "HAILO8"}, ("hailo-8",)),
        ({"0001:01:00.0": "HAILO8L"}, ("hailo-8l",)),
    ),
)
def test_hailo_8_and_8l_share_a_pci_id_and_the_lesser_is_assumed(
    machine: Unpacked, answer: Answer, kinds: tuple[str, ...]
) -> None:
    facts = read_facts(machine.root, ask=lambda question, key: answer)
    assert facts["accelerators"].value == kinds
    assert ("problems" in facts) == (not answer)


@pytest.mark.parametrize("machine", ("raspberry-pi-5",), indirect=True)
def test_a_hailo_without_its_driver_is_a_problem(machine: Unpacked) -> None:
    (machine.root / "dev/hailo0").unlink()
    facts = facts_of(machine)
    assert facts["accelerators"].value == ()
    assert "Hailo 1e60:2864 at 0001:01:00.0 has no driver" in str(facts["problems"].value)


@pytest.mark.parametrize("machine", ("coral-box",), indirect=True)
def test_an_amd_gpu_states_its_memory_and_an_xdna_npu_is_found(machine: Unpacked) -> None:
    gpu = machine.root / "sys/devices/pci0000:00/0000:03:00.0"
    npu = machine.root / "sys/devices/pci0000:00/0000:04:00.1"
    for folder, ids, driver in (
        (gpu, ("0x1002", "0x744c"), "amdgpu"),
        (npu, ("0x1022", "0x17f0"), "amdxdna"),
    ):
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(ids[0])
        (folder / "device").write_text(ids[1])
        (folder / "driver").symlink_to(f"../drivers/{driver}")
        (machine.root / "sys/bus/pci/devices" / folder.name).symlink_to(
            f"../../../devices/pci0000:00/{folder.name}"
        )
    (gpu / "drm/renderD129").mkdir(parents=True)
    (gpu / "mem_info_vram_total").write_text("25753026560\n")
    (machine.root / "sys/class/drm/card1").mkdir()
    (machine.root / "sys/class/drm/card1/device").symlink_to("../../../devices/pci0000:00/0000:03:00.0")
    (machine.root / "sys/class/accel/accel0").mkdir(parents=True)
    (machine.root / "sys/class/accel/accel0/device").symlink_to("../../../devices/pci0000:00/0000:04:00.1")
    found = values(facts_of(machine))
    assert found["accelerators"] == ("amd-gpu", "amd-npu", "coral-usb", "intel-gpu")
    assert found["gpu.0.vendor"] == "intel"
    assert found["gpu.1.name"] == "AMD 1002:744c"
    assert found["gpu.1.memory_bytes"] == 25753026560
    assert found["gpu.1.device"] == "/dev/dri/renderD129"
    assert found["devices.npu"] == ("/dev/accel/accel0",)


@pytest.mark.parametrize(
    ("chip", "nodes", "kind"),
    (
        ("rockchip,rk3588", ("rknpu",), "rockchip-npu"),
        ("qcom,qcs6490", ("fastrpc-cdsp",), "qualcomm-npu"),
        ("fsl,imx8mp", ("galcore",), "nxp-npu"),
        ("fsl,imx93", ("ethosu0",), "nxp-npu"),
        ("", ("apex_0",), "coral-pcie"),
    ),
)
def test_npus_of_systems_on_chip_are_found_by_their_nodes(
    tmp_path: Path, chip: str, nodes: tuple[str, ...], kind: str
) -> None:
    for folder in ("dev", "sys/class", "sys/firmware/devicetree/base"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/firmware/devicetree/base/compatible").write_text(f"board\0{chip}\0")
    for node in nodes:
        (tmp_path / "dev" / node).touch()
    found = values(read_facts(tmp_path))
    assert found["accelerators"] == (kind,)
    assert found[f"accelerator.{kind}.devices"] == tuple(f"/dev/{node}" for node in nodes)


def test_an_empty_machine_has_no_facts_and_raises_nothing(tmp_path: Path) -> None:
    assert set(read_facts(tmp_path)) == set()


def test_facts_of_this_machine_need_no_root_and_no_hub(tmp_path: Path) -> None:
    facts = read_facts(data=tmp_path / "not" / "there")
    assert facts["arch"].value == os.uname().machine
    assert facts["cpu_count"].value == len(os.sched_getaffinity(0))
    total, free = facts["disk.total_bytes"].value, facts["disk.free_bytes"].value
    assert isinstance(total, int) and isinstance(free, int) and 0 < free <= total


@pytest.mark.parametrize(
    ("flags", "level"),
    (
        ("cmov cx8 fpu fxsr mmx sse sse2 syscall", "x86-64-v1"),
        ("cmov cx8 fpu fxsr mmx sse sse2 syscall avx2 avx512f", "x86-64-v1"),
        ("cmov cx8 fpu fxsr mmx sse sse2", ""),
    ),
)
def test_an_x86_level_needs_all_of_those_below(flags: str, level: str) -> None:
    assert x86_level(frozenset(flags.split())) == level


GB10 = """fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop
    sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm sb paca pacg dcpodp sve2 sveaes flagm2 frint svei8mm
    svebf16 i8mm bf16 dgh bti ecv"""


# Features of real machines: hrw/arm-socs-table on GitHub, issues 25, 63, 91 and 133.
@pytest.mark.parametrize(
    ("features", "level"),
    (
        ("fp asimd evtstrm aes pmull sha1 sha2 crc32", "armv8-a"),
        ("fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm dcpop", "armv8.2-a"),
        (
            GB10,
            "armv9-a",
        ),
    ),
    ids=("Cortex-A57", "Carmel", "Cortex-A725"),
)
def test_an_arm_level_is_what_its_features_make_mandatory(features: str, level: str) -> None:
    assert arm_level(frozenset(features.split()), "CPU architecture: 8\n") == level


def test_flags_of_x86_are_those_that_inference_asks_for() -> None:
    flags = frozenset(
        ("fpu", "vme", "pni", "avx2", "avx512_vnni", "amx_tile", "rtm", "svm", "fma", "hypervisor")
    )
    assert kept_flags(flags, x86=True) == ["amx_tile", "avx2", "avx512_vnni", "fma", "sse3"]


def test_unlike_cores_of_an_arm_chip_are_all_named() -> None:
    core = "CPU implementer : 0x41\nCPU architecture: 8\nCPU part : {}\n\n"
    cpuinfo = core.format("0xd05") * 4 + core.format("0xd0b") * 2 + core.format("0xfff")
    assert model_name(cpuinfo) == "Arm Cortex-A55 + Arm Cortex-A76 + implementer 0x41 part 0xfff"


def test_a_detector_that_fails_is_a_problem_and_hinders_no_other(tmp_path: Path) -> None:
    def fail(question: Question, key: object) -> Answer:
        raise RuntimeError("the driver is out of its mind")

    machine = unpack("two-gpus", tmp_path)
    found = values(read_facts(machine.root, ask=fail))
    assert "detector gpus failed: RuntimeError" in str(found["problems"])
    assert found["memory_bytes"] == 263847432 * 1024
    assert found["devices.serial"] == ()


def test_built_machines_are_what_their_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("write_machines", ROOT / "scripts" / "write_machines.py")
    assert spec is not None and spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, build in script.BUILT.items():
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == build().text(), name


@pytest.mark.parametrize(
    ("text", "base", "number"),
    (
        ("12", 10, 12),
        ("0x1e60", 16, 0x1E60),
        ("0x10", 0, 16),
        ("٣", 10, None),
        ("9" * 30, 10, None),
        ("", 10, None),
    ),
)
def test_a_number_is_a_short_ascii_one(text: str, base: int, number: int | None) -> None:
    assert parse_number(text, base) == number


def test_a_pipe_or_a_device_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    tree = Tree(tmp_path)
    assert [tree.text(name) for name in ("pipe", "zero", "loop", "nul\0")] == ["", "", "", ""]


HUGE = {
    "none": b"\xff" * 100_000,
    "digits": b"9" * 5000,
    "deep": b"[" * 3000,
    "lines": b"a: b\n" * 20_000,
    "spaces": b"kind: x" + b" " * 60_000 + b"y",
}
SOURCES = {
    name: sorted(msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())["files"]) for name in MACHINES
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@example(data=b"\xff\x00[" * 30_000)
@example(data=b"[" * 3000)
def test_arbitrary_bytes_in_any_file_raise_nothing_and_take_no_time(
    data: st.DataObject | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = "two-gpus" if isinstance(data, bytes) else data.draw(st.sampled_from(MACHINES))
    machine = unpack(name, tmp_path_factory.mktemp("fuzz"))
    garbage = st.one_of(
        st.binary(max_size=300),
        st.text(alphabet="0123456789abcdefx:.-= \n\t\0", max_size=60).map(str.encode),
        st.integers(-(10**30), 10**30).map(lambda number: str(number).encode()),
        st.sampled_from(sorted(HUGE)).map(HUGE.__getitem__),
    )
    if isinstance(data, bytes):
        written = dict.fromkeys(SOURCES[name], data)
    else:
        written = data.draw(st.dictionaries(st.sampled_from(SOURCES[name]), garbage, max_size=6))
    for path, content in written.items():
        (machine.root / path).write_bytes(content)
    started = time.process_time()
    facts = facts_of(machine)
    assert time.process_time() - started < 2
    problems = facts["problems"].value if "problems" in facts else ()
    assert not [problem for problem in str(problems).split("'") if problem.startswith("detector")]
    assert len(encode_canonical(facts)) < 1 << 18
    assert all(find_fact_name(fact) for fact in facts)


def test_looking_finds_what_is_plugged_in_and_nothing_where_nothing_changed(tmp_path: Path) -> None:
    machine = unpack("coral-box", tmp_path)
    detector = HostDetector(machine.root, data=machine.data)
    before = detector.look()
    assert detector.look() == before
    (machine.root / "dev/video0").touch()
    plugged = detector.look()
    assert plugged != before
    (machine.root / "dev/loop7").touch()
    assert detector.look() == plugged, "what holds no fact is not looked at"
    (machine.root / "sys/bus/usb/devices/1-2").unlink()
    assert detector.look() != plugged
    known = detector.look()
    (machine.data / "facts.d").mkdir()
    (machine.data / "facts.d/hall.json").write_text('{"hall": 3}')
    assert detector.look() != known


def test_the_table_names_each_fact_once_and_examples_are_valid() -> None:
    names = [entry.name for entry in FACT_NAMES]
    assert len(names) == len(set(names))
    for name in (
        "gpu.N.vendor",
        "accelerator.KIND.devices",
        "gpu.0.nonsense",
        "gpu.x.name",
        "runtime.tflite",
    ):
        assert find_fact_name(name) is None, name
