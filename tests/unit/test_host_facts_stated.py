"""Stated facts, CDI specifications, and asking libraries in a child."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.facts import override_facts
from skerry.adapters.facts.asking import ChildAnswers, ask_child
from skerry.adapters.facts.cdi import detect_cdi, parse_cdi, parse_cdi_yaml
from skerry.adapters.facts.child import run_child
from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.questions import parse_smi
from skerry.adapters.facts.runtimes import detect_runtimes, find_package
from skerry.adapters.facts.tree import Tree
from skerry.cli.main import run
from skerry.kit.errors import Rejected
from skerry.spec.fact_names import FACT_NAMES, find_fact_name
from skerry.spec.facts import Fact, FactValue
from tests.unit.machines import unpack

FOUND = {
    "arch": Fact(value="x86_64", source="uname"),
    "gpu.count": Fact(value=1, source="NVML"),
    "gpu.0.vendor": Fact(value="nvidia", source="NVML"),
    "gpu.0.memory_bytes": Fact(value=1, source="NVML"),
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    (
        ("arch", "aarch64", "aarch64"),
        ("memory_bytes", "512MiB", 512 << 20),
        ("memory_bytes", "1024", 1024),
        ("gpu.0.memory_bytes", "8GiB", 8 << 30),
        ("gpu.3.compute", "8.10", "8.10"),
        ("gpu.count", "2", 2),
        ("gpu.0.mig", "true", True),
        ("accelerators", "nvidia-gpu, jetson,jetson", ("nvidia-gpu", "jetson")),
        ("accelerator.hailo-8.devices", "/dev/hailo0", ("/dev/hailo0",)),
        ("devices.camera", "/dev/video0,/dev/video2", ("/dev/video0", "/dev/video2")),
        ("custom.hall", "3", 3),
        ("custom.hall", "left", "left"),
        ("custom.lit", "false", False),
        ("engine.rootless", "false", False),
        ("measured.digits@1.0.0/int8.latency_us", "2140", 2140),
        ("runtime.onnxruntime.providers", "CPUExecutionProvider", ("CPUExecutionProvider",)),
    ),
)
def test_a_stated_fact_has_the_type_of_the_table(name: str, text: str, value: FactValue) -> None:
    assert override_facts({}, {name: text}) == {name: Fact(value=value, source="override")}


@pytest.mark.parametrize(
    ("name", "text", "code"),
    (
        ("colour", "red", "facts.unknown"),
        ("gpu.0.colour", "red", "facts.unknown"),
        ("custom.", "red", "facts.unknown"),
        ("custom.bad name", "red", "facts.unknown"),
        ("*", "", "facts.unknown"),
        ("memory_bytes", "lots", "facts.malformed"),
        ("memory_bytes", "9" * 18, "facts.malformed"),
        ("cpu_count", "2.5", "facts.malformed"),
        ("gpu.0.mig", "perhaps", "facts.malformed"),
        ("devices.camera", ", ,", "facts.malformed"),
    ),
)
def test_what_the_table_does_not_know_or_cannot_read_is_refused(name: str, text: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        override_facts(FOUND, {name: text})
    assert caught.value.code == code


def test_an_empty_value_takes_facts_away_so_that_a_gpu_can_be_absent() -> None:
    assert set(override_facts(FOUND, {"gpu.0.vendor": ""})) == {"arch", "gpu.count", "gpu.0.memory_bytes"}
    assert set(override_facts(FOUND, {"gpu.*": ""})) == {"arch"}
    replaced = override_facts(FOUND, {"gpu.*": "", "gpu.count": "0"})
    assert replaced["gpu.count"].value == 0


def test_memory_and_disk_may_be_written_short() -> None:
    stated = override_facts({}, {"memory": "1GiB", "disk": "2GiB"})
    assert {name: fact.value for name, fact in stated.items()} == {
        "memory_bytes": 1 << 30,
        "disk.free_bytes": 2 << 30,
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_statement_is_a_fact_or_refused(name: str, text: str) -> None:
    with contextlib.suppress(Rejected):
        assert all(find_fact_name(fact) for fact in override_facts({}, {name: text}))


# ── CDI ──────────────────────────────────────────────────────────────────────────────────────────────

_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,20}", fullmatch=True)
_edits = st.fixed_dictionaries(
    {
        "deviceNodes": st.lists(
            st.fixed_dictionaries({"path": st.just("/dev/x"), "name": _names}), max_size=2
        ),
        "env": st.lists(st.sampled_from(("name: odd", "A=b", "kind: x/y")), max_size=2),
    }
)
_specifications = st.fixed_dictionaries(
    {
        "cdiVersion": st.just("0.6.0"),
        "kind": st.sampled_from(("nvidia.com/gpu", "vendor.example/class_1")),
        "devices": st.lists(st.fixed_dictionaries({"name": _names, "containerEdits": _edits}), max_size=4),
        "containerEdits": _edits,
    }
)


@given(_specifications, st.booleans())
def test_yaml_as_generators_write_it_is_read_as_the_same_in_json(
    document: dict[str, Any], sort: bool
) -> None:
    text = yaml.safe_dump(document, sort_keys=sort, default_flow_style=False)
    if any("{}" in line or "[]" in line for line in text.splitlines()):
        text = text.replace("devices: []", "devices:")
    expected = [f"{document['kind']}={device['name']}" for device in document["devices"]]
    assert parse_cdi(json.dumps(document).encode()) == expected
    assert parse_cdi_yaml(text) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    (
        (
            'kind: a.b/c\ndevices:\n  - name: "0"  # first\n    containerEdits: {}\n  - name: x\n',
            ["a.b/c=0", "a.b/c=x"],
        ),
        ("---\n# generated\ndevices:\n- name: all\nkind: 'a.b/c'\n", ["a.b/c=all"]),
        ("kind: a.b/c\n", []),
    ),
)
def test_block_style_of_all_kinds_is_read(text: str, names: list[str]) -> None:
    assert parse_cdi_yaml(text) == names


@pytest.mark.parametrize(
    "text",
    (
        "{kind: a.b/c, devices: []}",
        "kind: a.b/c\ndevices: [{name: x}]",
        "kind: a.b/c\ndevices:\n- {name: x}\n",
        "",
        "kind: x\n",
    ),
)
def test_what_is_not_in_block_style_is_a_problem_and_not_silence(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"block style|no kind"):
        parse_cdi_yaml(text)
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/x.yaml").write_text(text)
    found = Findings()
    detect_cdi(Tree(tmp_path), found)
    assert "CDI specification /etc/cdi/x.yaml" in str(found.finish()["problems"].value)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_specification_or_a_problem(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all("=" in name for name in parse_cdi(data))
    with contextlib.suppress(ValueError):
        assert all("=" in name for name in parse_cdi_yaml(data.decode()))


# ── libraries ────────────────────────────────────────────────────────────────────────────────────────


def test_a_real_onnx_runtime_names_its_providers_without_being_imported_here() -> None:
    before = set(sys.modules)
    found = Findings()
    detect_runtimes(Tree(Path("/")), found, ChildAnswers())
    facts = found.finish()
    providers = facts["runtime.onnxruntime.providers"].value
    assert isinstance(providers, tuple) and "CPUExecutionProvider" in providers
    assert not {name for name in set(sys.modules) - before if name.startswith("onnxruntime")}


def test_an_answer_is_kept_until_what_it_depends_on_changes(tmp_path: Path) -> None:
    now = 0.0
    calls = tmp_path / "calls"
    script = tmp_path / "script.py"
    script.write_text(f"open({str(calls)!r}, 'a').write('x'); print('{{\"version\": \"1\"}}')")
    ask = ChildAnswers(monotonic=lambda: now, script=script)
    for key in ("a", "a", "a", "b", "b"):
        assert ask("openvino", key) == {"version": "1"}
    assert calls.read_text() == "xx"
    script.write_text(f"open({str(calls)!r}, 'a').write('x'); raise SystemExit(3)")
    assert ask("openvino", "c") == {"problem": "asking openvino: ended with status 3"}
    assert "problem" in ask("openvino", "c")
    assert calls.read_text() == "xxx", "a failure is not asked for again at once"
    now = 601.0
    assert "problem" in ask("openvino", "c")
    assert calls.read_text() == "xxxx"


@pytest.mark.parametrize(
    ("code", "problem"),
    (
        ("import time; time.sleep(1000)", "took longer than 0.5 s"),
        ("print('x' * 100000)", "wrote more than 64 KiB"),
        ("print('[1]')", "the answer makes no sense"),
        ("print('[' * 5000)", "the answer makes no sense"),
        ("import os; os.abort()", "killed by signal 6"),
    ),
)
def test_a_library_that_hangs_dies_or_babbles_is_a_problem(code: str, problem: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    started = time.monotonic()
    assert ask_child("nvml", limit_s=0.5 if "sleep" in code else 30, script=script) == {
        "problem": f"asking nvml: {problem}"
    }
    assert time.monotonic() - started < 30


def test_without_a_driver_asking_nvml_says_so() -> None:
    answer = ask_child("nvml")
    assert "problem" in answer or answer["gpus"], answer


def test_a_library_that_cannot_be_imported_is_a_problem_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino/__init__.py").write_text("")
    place = find_package("openvino", ["", "/no/such", str(tmp_path)])
    assert place is not None and place[0] == str(tmp_path / "openvino")
    found = Findings()
    detect_runtimes(Tree(tmp_path), found, lambda question, key: {"problem": "no"}, [str(tmp_path)])
    assert found.finish()["problems"].value == ("openvino: no",)


def test_what_a_child_cannot_be_is_told() -> None:
    outcome = run_child(["/no/such/program"], environment={}, limit_s=5, limit_bytes=10)
    assert outcome.failure == "cannot be run: No such file or directory"


def test_output_of_nvidia_smi_is_read_and_what_a_gpu_lacks_left_out() -> None:
    text = (
        "NVIDIA L4, 23034, 8.9, 550.54.15, [N/A], 00000000:17:00.0, 0\n"
        "NVIDIA H100, 81559, 9.0, 550.54.15, Enabled, 00000000:B1:00.0, 1\nnonsense\n"
    )
    assert parse_smi(text) == {
        "driver": "550.54.15",
        "gpus": [
            {"name": "NVIDIA L4", "bus": "0000:17:00.0", "memory_bytes": 23034 << 20, "compute": "8.9"},
            {
                "name": "NVIDIA H100",
                "bus": "0000:b1:00.0",
                "memory_bytes": 81559 << 20,
                "compute": "9.0",
                "mig": True,
            },
        ],
    }


# ── the command and the page ─────────────────────────────────────────────────────────────────────────


def test_the_command_prints_facts_with_sources_of_any_tree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = unpack("jetson-orin", tmp_path)
    arguments = ["agent", "facts", "--root", str(machine.root), "--data", str(machine.data)]
    assert run([*arguments, "-o", "json", "--fact", "custom.hall=3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["gpu.0.compute"]["value"] == "8.7"
    assert facts["custom.hall"] == {"value": 3, "source": "override"}
    assert run([*arguments, "--fact", "gpu.*="]) == 0
    table = capsys.readouterr().out
    assert "machine " in table and "/sys/firmware/devicetree/base/model" in table
    assert "gpu.0.compute" not in table
    assert run([*arguments, "--fact", "colour=red"]) == 2
    assert "unknown fact 'colour'" in capsys.readouterr().err


def test_the_reference_page_lists_every_fact_as_the_table_has_it() -> None:
    script = load_script("write_facts")
    assert script.PAGE.read_text(encoding="utf-8") == script.page_text(), "run scripts/write_facts.py"


def load_script(name: str) -> Any:
    path = Path(__file__).resolve().parents[2] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("entry", FACT_NAMES, ids=lambda entry: entry.name)
def test_the_example_of_every_fact_can_be_stated(entry: Any) -> None:
    name = entry.name.replace(".N.", ".0.").replace("KIND", "hailo-8").replace("custom.NAME", "custom.hall")
    name = name.replace("MODEL@VERSION/VARIANT", "digits@1.0.0/int8")
    assert name in override_facts({}, {name: entry.example})
