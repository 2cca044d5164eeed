"""Signs with a program: a service, a device, or a colleague's approval that skerry knows nothing of.

The protocol: the program is started without a shell; standard input is the bytes to sign, to their end; it prints the
signature as base64 (white space does not count) and exits 0. The signature is the 64 bytes of Ed25519, or DER of ECDSA
P-256 with SHA-256. SKERRY_SIGNING_KEYS has the ids of the keys whose signature would count, with commas. Standard error
is shown as it comes. Rules: it has `LIMIT_S` seconds and may print `MAX_OUTPUT` bytes; the signature is
verified before it is used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

from securesystemslib.signer import Key, Signature

from skerry.kit.errors import Rejected

COMMAND_PREFIX = "command:"
LIMIT_S = 120.0
MAX_OUTPUT = 16 << 10

Verify = Callable[[str, Signature, bytes, Sequence[Key]], Signature]


class CommandSigner:
    """Asks a program for each signature."""

    def __init__(self, text: str, verify: Verify, *, limit_s: float = LIMIT_S) -> None:
        """`text` is `command:PROGRAM ARGUMENTS`, quoted as in a shell.

        Raises:
            Rejected: there is no program in it (`signing.scheme`).
        """
        self._verify = verify
        self._limit_s = limit_s
        try:
            self._arguments = shlex.split(text.removeprefix(COMMAND_PREFIX))
        except ValueError as error:
            raise Rejected("signing.scheme", f"not a command: {error}") from None
        if not self._arguments:
            raise Rejected("signing.scheme", "command: names no program")
        # Arguments may hold what is nobody's business.
        self.name = COMMAND_PREFIX + self._arguments[0]

    def sign(self, payload: bytes, keys: Sequence[Key]) -> Signature:
        """Return the program's signature, verified.

        Raises:
            Rejected: none came (`signing.failed`), or a wrong one (`signing.bad_signature`).
        """
        printed = self._run(payload, keys)
        try:
            signature = base64.b64decode(b"".join(printed.split()), validate=True)
        except (binascii.Error, ValueError):
            signature = b""
        if not signature:
            raise self._failed("it printed something else than a signature in base64")
        return self._verify(self.name, Signature("", signature.hex()), payload, keys)

    def _run(self, payload: bytes, keys: Sequence[Key]) -> bytes:
        environment = os.environ | {"SKERRY_SIGNING_KEYS": ",".join(key.keyid for key in keys)}
        # A file, not a pipe: a program that never reads could not be written to without waiting for it.
        with tempfile.TemporaryFile() as given:
            given.write(payload)
            given.seek(0)
            try:
                process = subprocess.Popen(
                    self._arguments,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise self._failed(f"it cannot be started: {error.strerror}") from None
        with process:
            try:
                return self._collect(process)
            finally:
                # Whatever it started ends with it.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _collect(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        ends_at, printed = time.monotonic() + self._limit_s, b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, ends_at - time.monotonic())):
                chunk = os.read(process.stdout.fileno(), 4096)
                printed += chunk
                if len(printed) > MAX_OUTPUT:
                    raise self._failed(f"it printed more than {MAX_OUTPUT} bytes")
                if not chunk:
                    break
            else:
                raise self._failed(f"it did not end within {self._limit_s:g} s")
        try:
            code = process.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._failed(f"it did not end within {self._limit_s:g} s") from None
        if code:
            raise self._failed(f"it ended with exit code {code}")
        return printed

    def _failed(self, why: str) -> Rejected:
        hint = "it gets the bytes to sign on standard input, and prints the signature in base64"
        return Rejected("signing.failed", f"{self.name} did not sign: {why}", hint=hint)
