"""The child process that answers one question about libraries and prints the answer as JSON.

Rules: standard library only until the question's own library is imported, nothing of Skerry: it is run by path. Its
caller bounds its time.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

_smi_fields = "name,memory.total,compute_cap,driver_version,mig.mode.current,pci.bus_id,index"


def ask_nvml() -> dict[str, Any]:
    """Ask the NVIDIA Management Library, by nvidia-ml-py, or the driver's own program where that is not installed."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return ask_nvidia_smi()
    nvml.nvmlInit()
    cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    return {
        "source": "NVML",
        "driver": plain(nvml.nvmlSystemGetDriverVersion()),
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "gpus": [describe_gpu(nvml, number) for number in range(nvml.nvmlDeviceGetCount())],
    }


def describe_gpu(nvml: Any, number: int) -> dict[str, Any]:
    """Return what NVML says of one GPU; what a GPU does not have is left out."""
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    gpu: dict[str, Any] = {"name": plain(nvml.nvmlDeviceGetName(handle))}

    def put(name: str, ask: Any) -> None:
        with contextlib.suppress(nvml.NVMLError):  # not every GPU has everything
            gpu[name] = ask()

    put("memory_bytes", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    put("compute", lambda: "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(handle)))
    put("device", lambda: f"/dev/nvidia{nvml.nvmlDeviceGetMinorNumber(handle)}")
    put("bus", lambda: tidy_bus(plain(nvml.nvmlDeviceGetPciInfo(handle).busId)))
    put("mig", lambda: nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    if gpu.get("mig"):
        put("mig_instances", lambda: list_instances(nvml, handle))
    return gpu


def list_instances(nvml: Any, handle: Any) -> list[str]:
    """Return the names of a GPU's MIG instances."""
    names: list[str] = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError:
            continue  # a place that is not taken
        names.append(plain(nvml.nvmlDeviceGetName(instance)))
    return names


def ask_nvidia_smi() -> dict[str, Any]:
    """Ask `nvidia-smi`, which comes with the driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"problem": "neither nvidia-ml-py nor nvidia-smi is installed: memory and compute are unknown"}
    told = run(program, f"--query-gpu={_smi_fields}", "--format=csv,noheader,nounits")
    cuda = re.search(r"CUDA Version\s*:\s*([0-9.]+)", run(program, "-q"))
    return {"source": "nvidia-smi", "cuda": cuda[1] if cuda else "", **parse_smi(told)}


def parse_smi(text: str) -> dict[str, Any]:
    """Return the driver and the GPUs of `nvidia-smi`'s comma-separated output; `[N/A]` and its like are left out."""
    gpus: list[dict[str, Any]] = []
    driver = ""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(_smi_fields.split(",")):
            continue
        name, memory, compute, driver, mig, bus, _ = fields
        gpu: dict[str, Any] = {"name": name, "bus": tidy_bus(bus)}
        if memory.isdigit():
            gpu["memory_bytes"] = int(memory) << 20
        if re.fullmatch(r"[0-9]+\.[0-9]+", compute):
            gpu["compute"] = compute
        if mig in ("Enabled", "Disabled"):
            gpu["mig"] = mig == "Enabled"
        if device := device_of(gpu["bus"]):
            gpu["device"] = device
        gpus.append(gpu)
    return {"driver": driver, "gpus": gpus}


def device_of(bus: str) -> str:
    """Return the node of the GPU at a PCI address, as the driver's files have it."""
    try:
        with open(f"/proc/driver/nvidia/gpus/{bus}/information", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            minor = re.search(r"Device Minor:\s*([0-9]+)", file.read(8192))
    except OSError:
        return ""
    return f"/dev/nvidia{minor[1]}" if minor else ""


def tidy_bus(bus: str) -> str:
    """Return a PCI address as the kernel writes it: NVIDIA's has capitals and a longer domain."""
    return re.sub(r"^0000([0-9a-f]{4}:)", r"\1", bus.lower())


def ask_hailo() -> dict[str, Any]:
    """Ask each Hailo module's firmware what it is, by `hailortcli`: `{"0000:01:00.0": "HAILO8L"}`."""
    program = shutil.which("hailortcli")
    if program is None:
        return {}
    found: dict[str, Any] = {}
    for address in re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", run(program, "scan")):
        told = run(program, "fw-control", "identify", "-s", address)
        if match := re.search(r"Device Architecture:\s*(\w+)", told):
            found[address] = re.sub(r"_[AB][0-9]$", "", match[1])
    return found


def ask_onnxruntime() -> dict[str, Any]:
    """Import ONNX Runtime and name its execution providers."""
    runtime: Any = importlib.import_module("onnxruntime")
    return {"version": runtime.__version__, "names": list(runtime.get_available_providers())}


def ask_openvino() -> dict[str, Any]:
    """Import OpenVINO and name the devices it offers."""
    runtime: Any = importlib.import_module("openvino")
    version = importlib.metadata.version("openvino")
    return {"version": version, "names": list(runtime.Core().available_devices)}


def ask_tensorrt() -> dict[str, Any]:
    """Return the version of TensorRT's Python package, which need not be loaded for it."""
    return {"version": importlib.metadata.version("tensorrt")}


def plain(text: str | bytes) -> str:
    """Return text; older bindings hand out bytes."""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def run(*command: str) -> str:
    """Return what a program prints, at most 64 KiB; its failure is no output."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    return done.stdout[: 1 << 16]


_questions = {
    "nvml": ask_nvml,
    "hailo": ask_hailo,
    "onnxruntime": ask_onnxruntime,
    "openvino": ask_openvino,
    "tensorrt": ask_tensorrt,
}


def main() -> None:
    """Answer the question named on the command line."""
    # Libraries may write to standard output when they are loaded: the answer keeps it to itself.
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = _questions[sys.argv[1]]()
    except Exception as error:
        answer = {"problem": f"{type(error).__name__}: {error}"[:200]}
    with os.fdopen(out, "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
