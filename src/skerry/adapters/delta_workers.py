"""DeltaWorkers: one process for each delta (`delta_worker`), of low priority, with a time limit by size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from skerry.adapters import durable_files
from skerry.kit.digests import hex_of, parse_digest
from skerry.kit.errors import Missing, Unavailable
from skerry.ports.blobs import Blobs
from skerry.ports.delta_maker import DeltaMaker, MadeDelta

LEVEL = 19
START_LIMIT_S = 120.0
SLOWEST_BYTES_PER_S = 256 << 10
"""A twentieth of what one core codes: who is slower is stuck."""


class DeltaWorkers(DeltaMaker):
    """Makes deltas of blobs. `staging` is a directory for what is being made; leftovers in it are removed."""

    def __init__(
        self, blobs: Blobs, staging: Path, *, level: int = LEVEL, start_limit_s: float = START_LIMIT_S
    ) -> None:
        """`start_limit_s` is what a process may take beside the time that its files' sizes give it."""
        self._blobs = blobs
        self._start_limit_s = start_limit_s
        self._staging = staging
        self._level = level
        durable_files.make_directory(staging)
        for leftover in staging.iterdir():
            leftover.unlink(missing_ok=True)

    async def make(self, base: Sequence[str], target: str) -> MadeDelta:
        output = self._staging / f"{uuid.uuid4().hex}.delta"
        async with contextlib.AsyncExitStack() as stack:
            files = [await stack.enter_async_context(self._local(one)) for one in (target, *base)]
            try:
                total = sum(file.stat().st_size for file in files)
            except FileNotFoundError as error:  # removed since
                raise Missing("blob.unknown", f"a blob has gone: {error.filename}") from error
            try:
                said = await self._run(files, output, self._start_limit_s + total / SLOWEST_BYTES_PER_S)
                return MadeDelta(output, str(parse_digest(said["digest"])), int(said["size_bytes"]))
            except BaseException:
                output.unlink(missing_ok=True)
                raise

    async def _run(self, files: Sequence[Path], output: Path, limit_s: float) -> dict[str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "skerry.adapters.delta_worker", str(os.getpid()), str(self._level)),
            *(str(output), *map(str, files)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(limit_s):
                printed, complaint = await process.communicate()
        except TimeoutError:
            raise Unavailable("delta.too_slow", f"a delta was not made within {limit_s:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2][:300]
            if "No space left" in last:
                raise durable_files.disk_full(self._staging)
            raise Unavailable("delta.not_made", f"a delta could not be made: {last or process.returncode}")
        return dict(json.loads(printed))

    @asynccontextmanager
    async def _local(self, digest: str) -> AsyncGenerator[Path]:
        """Give a blob as a file, for a while as a copy where blobs are no files."""
        if await self._blobs.size(digest) is None:
            raise Missing("blob.unknown", f"there is no blob {digest}")
        file = self._blobs.file(digest)
        if file is not None:
            yield file
            return
        copy = self._staging / f"{hex_of(digest)}.{uuid.uuid4().hex}.copy"
        try:
            with copy.open("xb") as opened:
                async for chunk in self._blobs.read(digest):
                    await asyncio.to_thread(opened.write, chunk)
            yield copy
        except OSError as error:
            raise durable_files.translated(error, self._staging) from error
        finally:
            copy.unlink(missing_ok=True)
