"""A vault whose key is sealed by a TPM: a copy of the whole data directory is of no use on another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skerry.adapters.tpm_guard import TpmGuard
from skerry.agent.keys import KeyFiles
from skerry.agent.vault import Vault, VaultEntry, VaultState
from skerry.kit.errors import SkerryError, Untrusted
from tests.unit.test_tpm_guard import SoftwareTpm, needs_tpm

pytestmark = [pytest.mark.secrets, pytest.mark.tpm, needs_tpm]

CANARY = b"canary-of-the-vault-6b1e"


def vault_of(data: Path, guard: TpmGuard | None) -> Vault:
    return Vault(data, KeyFiles(data, guard))


@pytest.mark.rule("SECRET-2")
def test_a_copy_of_everything_a_host_has_on_disk_opens_on_its_own_tpm_alone(tmp_path: Path) -> None:
    own, other = SoftwareTpm(tmp_path / "own"), SoftwareTpm(tmp_path / "other")
    try:
        guard, foreign = TpmGuard(own.tcti), TpmGuard(other.tcti)
        data, copy = tmp_path / "data", tmp_path / "copy"
        vault = vault_of(data, guard)
        vault.open()
        vault.save(VaultState({"a": VaultEntry("a", "password", 1, CANARY)}))
        shutil.copytree(data, copy)
        again = vault_of(data, guard)
        again.open()
        assert again.state.entries["a"].value == CANARY
        with pytest.raises(SkerryError):
            KeyFiles(copy, None).vault_key()
        with pytest.raises(Untrusted):
            KeyFiles(copy, foreign).vault_key()
        stolen = vault_of(copy, foreign)
        stolen.open()
        assert stolen.lost
        assert stolen.state.entries == {}
        on_disk = b"".join(path.read_bytes() for path in copy.rglob("*") if path.is_file())
        assert CANARY not in on_disk
    finally:
        own.stop()
        other.stop()
