"""Facts: what a host found out about itself, each with where it was read."""

from __future__ import annotations

from skerry.spec.metadata import Part

FactValue = str | int | bool | tuple[str, ...]


class Fact(Part, frozen=True, kw_only=True):
    """One fact; `source` names the file or call it came from, or `override` when a person stated it."""

    value: FactValue
    source: str


HostFacts = dict[str, Fact]
"""Facts by name. A fact that could not be found out is not there, and meets no requirement. An empty tuple says that
there are none. `skerry.spec.fact_names` is the table of all names, with types and sources; in short:

Machine: `arch`, `arch_level` (`x86-64-v3`, `armv8.2-a`), `cpu_model`, `cpu_count`, `cpu_cores`, `cpu_flags`,
`memory_bytes`, `disk.free_bytes`, `disk.total_bytes`, `disk.class` (`nvme`, `ssd`, `hdd`, `sd`, `emmc`), `os`,
`os_version`, `kernel`, `hostname`, `machine` (the board's or product's own name), `keys` (`tpm` or `file`),
`lan_address` (`host:port` of heartbeats), `link.metered`, `jetson.l4t`.

Engine: `engine` (`podman` or `docker`; not there when there is none), `engine_version`, `engine.rootless`.

Accelerators: `gpu.count`, `gpu.cuda`, and for each GPU from 0 `gpu.N.vendor`, `gpu.N.name`, `gpu.N.memory_bytes`,
`gpu.N.compute` (`8.7`), `gpu.N.driver` (`535.104.05`), `gpu.N.mig`, `gpu.N.mig_instances`, `gpu.N.device`,
`gpu.N.bus`, `gpu.N.shared_memory`; `accelerators`, all kinds of
`skerry.spec.hardware.Accelerator` that are there; `accelerator.KIND.devices`.

Devices by class, each a tuple of paths or names: `devices.camera`, `devices.serial`, `devices.gpu`,
`devices.npu`, `devices.tpu`, `devices.can`, `devices.i2c`, `devices.spi`, `devices.gpio`; `devices.usb` as
`1a6e:089a Global Unichip`; `devices.cdi`, names of the Container Device Interface; `camera.names`.

Runtimes: `runtime.onnxruntime`, `runtime.openvino`, `runtime.tensorrt` are versions;
`runtime.onnxruntime.providers` and `runtime.openvino.devices` tuples.

`custom.NAME` comes from a drop-in; `measured.MODEL@VERSION/VARIANT.latency_us` from `skerry agent measure`;
`problems` says what could not be found out.
"""
