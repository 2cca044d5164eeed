"""TpmGuard: seals small secrets to this machine's TPM 2.0, by the programs of tpm2-tools.

- The parent is an ECC storage key that the TPM derives from its owner seed, the same at each call, so nothing is stored
  in the TPM. Clearing the TPM, or another board, has another seed: what was sealed before opens nowhere any more.
- No PCR policy: a new kernel or firmware must not lock a host out at a remote site.
- Secrets go through pipes. The files that tpm2-tools need hold only public parts and what is sealed.
- A TPM has few slots. Without a resource manager (`/dev/tpmrm0` is one) each call gives back the one it used.

Source of the flow: the manual pages of tpm2_createprimary, tpm2_create, tpm2_load and tpm2_unseal.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry.kit.errors import Rejected, Unavailable, Untrusted

TOOLS = ("tpm2_createprimary", "tpm2_create", "tpm2_load", "tpm2_unseal", "tpm2_flushcontext")
STEP_LIMIT_S = 60.0
MOST_SECRET_BYTES = 128
_MOST_OUTPUT_BYTES = 4096
_SEAL_ATTRIBUTES = "fixedtpm|fixedparent|noda|userwithauth"
# What tpm2_load says of a blob that another TPM, or this one before it was cleared, has sealed.
_FOREIGN = ("0x1df", "0x9f", "integrity", "0x1d2")


class Sealed(msgspec.Struct, frozen=True):
    """A sealed secret: the two parts that tpm2_create writes."""

    public: bytes
    private: bytes


class TpmGuard:
    """A `KeyGuard` over one TPM; `tcti` is how tpm2-tools reach it."""

    def __init__(self, tcti: str, *, limit_s: float = STEP_LIMIT_S) -> None:
        self._tcti = tcti
        self._limit_s = limit_s
        self._turn = threading.Lock()

    @classmethod
    def find(cls, env: Mapping[str, str], device: Path) -> TpmGuard | None:
        """Return the guard of the TPM at `device`; None when there is no TPM, no tools, or no right to use it.

        `TPM2TOOLS_TCTI` in the environment names another TPM, as it does to the tools themselves.
        """
        if not all(shutil.which(tool, path=env.get("PATH")) for tool in TOOLS):
            return None
        if tcti := env.get("TPM2TOOLS_TCTI"):
            return cls(tcti)
        return cls(f"device:{device}") if os.access(device, os.R_OK | os.W_OK) else None

    def seal(self, secret: bytes) -> bytes:
        if len(secret) > MOST_SECRET_BYTES:
            raise Rejected("key.too_long", f"a TPM seals {MOST_SECRET_BYTES} bytes at the most")
        with self._turn, tempfile.TemporaryDirectory(prefix="skerry-tpm-") as name:
            folder = Path(name)
            self._make_parent(folder)
            self._run(
                "tpm2_create", "-C", "parent.ctx", "-u", "public", "-r", "private", "-a", _SEAL_ATTRIBUTES,
                "-i", "-", folder=folder, given=secret,
            )  # fmt: skip
            self._flush(folder)
            sealed = Sealed((folder / "public").read_bytes(), (folder / "private").read_bytes())
        return msgspec.json.encode(sealed)

    def unseal(self, sealed: bytes) -> bytes:
        try:
            parts = msgspec.json.decode(sealed, type=Sealed)
        except (msgspec.DecodeError, ValueError) as error:
            raise Untrusted("key.unreadable", "what the TPM has sealed is damaged") from error
        with self._turn, tempfile.TemporaryDirectory(prefix="skerry-tpm-") as name:
            folder = Path(name)
            (folder / "public").write_bytes(parts.public)
            (folder / "private").write_bytes(parts.private)
            self._make_parent(folder)
            self._run(
                "tpm2_load",
                "-C",
                "parent.ctx",
                "-u",
                "public",
                "-r",
                "private",
                "-c",
                "key.ctx",
                folder=folder,
            )
            self._flush(folder)
            secret = self._run("tpm2_unseal", "-c", "key.ctx", folder=folder)
            self._flush(folder)
        return secret

    def _make_parent(self, folder: Path) -> None:
        self._run(
            "tpm2_createprimary", "-C", "o", "-G", "ecc", "-g", "sha256", "-c", "parent.ctx", folder=folder
        )
        self._flush(folder)

    def _flush(self, folder: Path) -> None:
        if "tpmrm" not in self._tcti:
            self._run("tpm2_flushcontext", "--transient-object", folder=folder)

    def _run(self, *command: str, folder: Path, given: bytes = b"") -> bytes:
        tool = command[0]
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "TPM2TOOLS_TCTI": self._tcti,
            "TSS2_LOG": "all+none",
        }
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=env,
                input=given,
                capture_output=True,
                timeout=self._limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            # Not chained: its `output` may be what was unsealed.
            raise Unavailable("key.guard_away", f"{tool} did not end within {self._limit_s:g} s") from None
        except OSError as error:
            raise Unavailable("key.guard_away", f"cannot run {tool}: {error.strerror}") from error
        if done.returncode == 0:
            return done.stdout[:_MOST_OUTPUT_BYTES]
        said = done.stderr.decode(errors="replace").strip()[-300:]
        if tool == "tpm2_load" and any(code in said.lower() for code in _FOREIGN):
            message = (
                "this machine's TPM does not open the host's keys: it was cleared, or this is another machine"
            )
            hint = "give this machine new keys: skerry site token SITE --replace HOST, then skerry agent join here"
            raise Untrusted("key.foreign", message, hint=hint)
        raise Unavailable(
            "key.guard_away", f"the TPM cannot be used: {tool} failed: {said or 'it says nothing'}"
        )
