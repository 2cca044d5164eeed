"""BackendLink: a way up to a backend of this process, without a network, that can be cut at any call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from skerry.kit.errors import Missing, SkerryError, Unavailable
from skerry.ports.carrier_backend import CarrierBackend
from skerry.ports.link import Link
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest
from skerry.testing.faults import FaultPlan

T = TypeVar("T")
M = TypeVar("M", bound=msgspec.Struct)


class BackendLink(Link):
    """Calls a backend that lives in the event loop in which this was made; its own methods are for other threads.

    While it is `away` nothing gets through; `plan` cuts single calls before or after they had their effect. What
    crosses is encoded and decoded, as on a wire. A chunk of a blob counts as a call of `chunk`.
    """

    def __init__(self, backend: CarrierBackend) -> None:
        self.backend = backend
        self.away = False
        self.plan = FaultPlan()
        self.carries: list[tuple[CarryRequest, CarryAnswer]] = []
        self._loop = asyncio.get_running_loop()

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        return self._call("enroll", self.backend.enroll(_copy(request)))

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        return self._call("change_keys", self.backend.change_keys(_copy(request)))

    def sync(self, request: SyncRequest) -> SyncAnswer:
        return _copy(self._call("sync", self.backend.sync(_copy(request))))

    def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        return _copy(self._call("enroll_relay", self.backend.enroll_relay(_copy(request))))

    def carry(self, request: CarryRequest) -> CarryAnswer:
        answer = _copy(self._call("carry", self.backend.carry(_copy(request))))
        self.carries.append((request, answer))
        return answer

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        return self._call("deltas", self._deltas(request, token))

    def blob_size(self, digest: str, *, token: str) -> int | None:
        return self._call("blob_size", self._size(digest, token))

    @contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        size = self._call("blob", self._size(digest, token))
        if size is None:
            raise Missing("blob.missing", f"there is no blob {digest}")
        yield self._chunks(digest, offset, size if limit is None else min(size, offset + limit))

    def metadata(self, name: str, *, token: str, max_bytes: int) -> bytes | None:
        try:
            return self._call("metadata", self._metadata(name, token))
        except Missing:
            return None

    def close(self) -> None:
        self.away = True

    def _chunks(self, digest: str, offset: int, end: int) -> Iterator[bytes]:
        reading = self.backend.blobs.read(digest, start=offset, end=end)
        while True:
            try:
                chunk = self._call("chunk", _next(reading))
            except SkerryError as error:
                raise Unavailable("link.cut", f"the blob was cut off: {error.message}") from error
            if not chunk:
                return
            yield chunk

    def _call(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        if self.away:
            call.close()
            raise Unavailable("link.unreachable", "the upstream is away in this test")
        entered = False
        try:
            with self.plan.around(name):
                entered = True
                return asyncio.run_coroutine_threadsafe(call, self._loop).result()
        finally:
            if not entered:
                call.close()

    async def _size(self, digest: str, token: str) -> int | None:
        self.backend.check_blob_token(token)
        return await self.backend.blobs.size(digest)

    async def _metadata(self, name: str, token: str) -> bytes:
        self.backend.check_blob_token(token)
        return await self.backend.metadata(name)

    async def _deltas(self, request: DeltaRequest, token: str) -> DeltaAnswer:
        return await self.backend.deltas(self.backend.check_blob_token(token), request)


async def _next(reading: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(reading)
    except StopAsyncIteration:
        # Of what a coroutine may raise, this is not one that reaches another thread.
        return b""


def _copy(message: M) -> M:
    return msgspec.json.decode(msgspec.json.encode(message), type=type(message))
