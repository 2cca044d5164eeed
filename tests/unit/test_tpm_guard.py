"""Keys that are sealed by a real (software) TPM: opened by it alone, never in clear on disk or in arguments."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.adapters.machine_mark import machine_mark
from skerry.adapters.tpm_guard import TOOLS, TpmGuard
from skerry.agent.keys import KeyFiles, key_facts
from skerry.kit.errors import Rejected, Unavailable, Untrusted
from skerry.testing.fleet import free_port

pytestmark = pytest.mark.trust

needs_tpm = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("swtpm", *TOOLS)), reason="needs swtpm and tpm2-tools"
)


class SoftwareTpm:
    """A TPM in a process of its own. `clear` gives it another seed, as another board would have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def tcti(self) -> str:
        """How tpm2-tools reach it."""
        return f"swtpm:host=127.0.0.1,port={self._port}"

    def start(self) -> None:
        """Start it; the two ports that the tools expect are neighbours."""
        self._folder.mkdir(exist_ok=True)
        for _ in range(5):
            self._port = free_port()
            ends = [f"type=tcp,bindaddr=127.0.0.1,port={port}" for port in (self._port, self._port + 1)]
            self._process = subprocess.Popen(
                [
                    "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._folder}",
                    "--server", ends[0], "--ctrl", ends[1], "--flags", "not-need-init,startup-clear",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if self._answers():
                return
            self.stop()
        raise AssertionError("the software TPM did not start")

    def _answers(self) -> bool:
        """Ask it something; its socket may not be open yet, or its port be another's."""
        assert self._process is not None
        env = {"PATH": "/usr/bin:/bin", "TPM2TOOLS_TCTI": self.tcti}
        for _ in range(50):
            if self._process.poll() is not None:
                return False
            asked = subprocess.run(
                ["tpm2_getrandom", "4"], env=env, capture_output=True, timeout=30, check=False
            )
            if asked.returncode == 0:
                return True
        return False

    def clear(self) -> None:
        """Lose all state."""
        self.stop()
        shutil.rmtree(self._folder)
        self.start()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftwareTpm]:
    made = SoftwareTpm(tmp_path / "tpm")
    yield made
    made.stop()


@needs_tpm
@pytest.mark.tpm
@pytest.mark.rule("IDENTITY-5")
def test_sealed_keys_are_nowhere_in_clear_and_open_only_with_the_tpm(
    tpm: SoftwareTpm, tmp_path: Path
) -> None:
    files = KeyFiles(tmp_path, TpmGuard(tpm.tcti))
    made = files.make()
    assert files.kind == "tpm"
    assert key_facts(files)["keys"].value == "tpm"
    assert KeyFiles(tmp_path, TpmGuard(tpm.tcti)).load().public == made.sign.public
    clear = [made.sign.to_pem(), b"PRIVATE KEY"]
    for path in (tmp_path / "keys").iterdir():
        assert not any(part in path.read_bytes() for part in clear)
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unavailable, match="sealed by a TPM"):
        KeyFiles(tmp_path).load()
    staged = files.stage()
    files.promote()
    assert files.load().public == staged.sign.public != made.sign.public
    assert files.kind == "tpm"


@needs_tpm
@pytest.mark.tpm
@pytest.mark.rule("IDENTITY-5")
def test_a_tpm_that_lost_its_state_says_what_to_do_and_new_keys_can_be_made(
    tpm: SoftwareTpm, tmp_path: Path
) -> None:
    before = KeyFiles(tmp_path, TpmGuard(tpm.tcti))
    before.make()
    before.stage()
    tpm.clear()
    files = KeyFiles(tmp_path, TpmGuard(tpm.tcti))
    with pytest.raises(Untrusted, match="was cleared, or this is another machine") as caught:
        files.load()
    assert caught.value.code == "key.foreign"
    assert "skerry site token SITE --replace HOST" in caught.value.hint
    staged = files.stage()
    files.promote()
    assert files.load().public == staged.sign.public
    tpm.stop()
    with pytest.raises(Unavailable, match="the TPM cannot be used"):
        files.load()


@needs_tpm
@pytest.mark.tpm
def test_a_tpm_without_a_resource_manager_is_not_filled_up(tpm: SoftwareTpm) -> None:
    guard = TpmGuard(tpm.tcti)
    for number in range(5):
        secret = bytes([number]) * 128
        assert guard.unseal(guard.seal(secret)) == secret


def test_what_is_too_long_or_damaged_is_refused_before_the_tpm_is_asked() -> None:
    guard = TpmGuard("swtpm:port=1")
    with pytest.raises(Rejected, match="128 bytes"):
        guard.seal(bytes(129))
    with pytest.raises(Untrusted, match="damaged"):
        guard.unseal(b"{}")


def test_without_tools_or_a_device_there_is_no_tpm(tmp_path: Path) -> None:
    assert TpmGuard.find({"PATH": str(tmp_path)}, tmp_path) is None
    assert TpmGuard.find({"PATH": str(tmp_path), "TPM2TOOLS_TCTI": "swtpm:"}, tmp_path) is None
    for tool in TOOLS:
        (tmp_path / tool).touch(mode=0o755)
    assert TpmGuard.find({"PATH": str(tmp_path)}, tmp_path / "tpmrm0") is None
    (tmp_path / "tpmrm0").touch()
    assert TpmGuard.find({"PATH": str(tmp_path)}, tmp_path / "tpmrm0") is not None
    assert TpmGuard.find({"PATH": str(tmp_path), "TPM2TOOLS_TCTI": "swtpm:"}, tmp_path / "none") is not None


def test_a_tool_that_hangs_or_fails_is_an_error_without_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "tpm2_createprimary"
    tool.write_text("#!/bin/sh\ncat >/dev/null; exec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match="did not end within") as caught:
        TpmGuard("swtpm:", limit_s=0.2).seal(b"very secret")
    assert caught.value.__cause__ is None
    tool.write_text("#!/bin/sh\necho out of order >&2; exit 1\n")
    with pytest.raises(Unavailable, match="out of order"):
        TpmGuard("swtpm:").seal(b"very secret")


def test_a_copied_disk_has_another_mark_on_another_machine(tmp_path: Path) -> None:
    def root(name: str, uuid: str, address: str) -> Path:
        made = tmp_path / name
        for path, content in (
            ("etc/machine-id", "0123"),
            ("sys/class/dmi/id/product_uuid", uuid),
            ("sys/class/net/eth0/address", address),
            ("sys/class/net/eth0/device/vendor", "x"),
            ("sys/class/net/docker0/address", name),
        ):
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(content + "\n")
        return made

    marks = [
        machine_mark(root(*given))
        for given in (("a", "1", "2"), ("b", "1", "2"), ("c", "9", "2"), ("d", "1", "9"))
    ]
    assert marks[0] == marks[1]  # what is no device does not count
    assert len(set(marks)) == 3
    assert all(len(mark) == 8 for mark in marks)
    assert len(machine_mark(tmp_path / "nothing")) == 8
