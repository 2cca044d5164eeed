"""What is done to the containers of one owner, one call after the other; blocking, for threads.

Rules:
- Each action reads what is there and then does what is missing, so that it can be done again after any crash.
- A container that was made and not started is taken away, never started later: it may be an old spec's.
- Removing one that must not run is left to the engine, which refuses it in one step.
"""

from __future__ import annotations

import contextlib
import signal as signals
from collections.abc import Sequence

import msgspec

from skerry.adapters.docker_create import body_of, check_spec, failure_of, hosts_of, labels_of
from skerry.adapters.docker_engine import EngineFacts
from skerry.adapters.docker_execute import NOT_THERE, execute, payloads
from skerry.adapters.docker_libpod import CREATE_PATH, libpod_body_of, needs_libpod
from skerry.adapters.docker_look import EngineLook, Sighting
from skerry.adapters.docker_names import (
    NETWORK_LABEL,
    NEW,
    StopMark,
    boot_ms,
    container_name,
    deadline_after,
    network_name,
)
from skerry.adapters.docker_networks import EngineNetworks
from skerry.adapters.docker_output import read_output
from skerry.adapters.engine_api import Answer, EngineApi, part
from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.runtime import ContainerSpec, ExecResult, InstanceSpec, Output

_START_LIMIT_S = 120.0
_REMOVE_LIMIT_S = 60.0
_ATTEMPTS = 5
_LOG_READ_LIMIT_S = 60.0
# So much later than the agent's own kill, so that the engine only acts where no agent does.
_ENGINE_LATER_S = 1
_STOP_WAIT_S = 0.05


class Settled(msgspec.Struct, frozen=True):
    """A run of a container that is to be killed at a time of this boot's clock."""

    container: str
    run: str
    deadline_ms: int


class EngineActions:
    """Starts, stops, removes and reads. Any thread may use it; the caller orders calls about one instance."""

    def __init__(self, api: EngineApi, owner: str, facts: EngineFacts) -> None:
        self.look = EngineLook(api, owner)
        self._api = api
        self._owner = owner
        self._facts = facts
        self._networks = EngineNetworks(api, owner)

    def start(self, spec: InstanceSpec) -> None:
        """See `Runtime.start`."""
        for _ in range(_ATTEMPTS):
            known = self.look.all(spec.id).get(spec.id, [])
            if any(sighting.is_alive for sighting in known):
                return
            container = check_spec(spec, self._facts.known())
            if self._start_new(spec, container, known):
                return
            self._free_name(spec.id)
        raise Unavailable("runtime.busy", "another agent of this owner is at the same instance", id=spec.id)

    def _start_new(self, spec: InstanceSpec, container: ContainerSpec, known: Sequence[Sighting]) -> bool:
        """Make and start a container beside the ended ones; False when somebody came in between."""
        for sighting in known:
            if sighting.is_fresh:
                self._delete(sighting.container, force=sighting.status == "initialized")
        network = labels_of(spec, container, owner=self._owner)[NETWORK_LABEL]
        try:
            with self._networks.there(network):
                gateway = self._networks.gateway(network) if container.host_names else ""
                made = self._create(spec, container, gateway)
            if made is None or not self._start_made(made, spec.id):
                return False
        except SkerryError:
            # What stays is tidied later; what is told is why it did not start.
            with contextlib.suppress(Unavailable):
                self._networks.tidy()
            raise
        # From here on it runs; what is left undone, `settle` does.
        for sighting in known:
            self._delete(sighting.container, force=True)
        self._rename(made, container_name(self._owner, spec.id))
        return True

    def _free_name(self, instance_id: str) -> None:
        """Free the name of a container that is half made: an engine killed in the middle lists it nowhere."""
        if not any(sighting.is_fresh for sighting in self.look.all(instance_id).get(instance_id, [])):
            self._delete(container_name(self._owner, instance_id) + NEW, force=True)

    def _create(self, spec: InstanceSpec, container: ContainerSpec, gateway: str) -> str | None:
        engine = self._facts.known()
        name = container_name(self._owner, spec.id) + NEW
        if needs_libpod(container, engine):
            body = libpod_body_of(spec, container, name=name, owner=self._owner, engine=engine)
            body |= {"hostadd": hosts_of(container, gateway)}
            answer = self._api.call("POST", CREATE_PATH, body=body)
        else:
            body = body_of(spec, container, owner=self._owner, engine=engine)
            body["HostConfig"]["ExtraHosts"] = hosts_of(container, gateway)
            answer = self._api.call("POST", "/containers/create", query={"name": name}, body=body)
        if answer.is_good:
            return str(answer.json()["Id"])
        if answer.status == 409 or "already in use" in answer.message:
            return None
        if answer.status == 404 and "image" in answer.message.lower():
            raise Unavailable(
                "runtime.image_missing", f"the engine has no image {container.image}", id=spec.id
            )
        raise failure_of(answer.message, spec.id)

    def _start_made(self, made: str, instance_id: str) -> bool:
        answer = self._api.call("POST", f"/containers/{part(made)}/start", timeout_s=_START_LIMIT_S)
        if answer.is_good:
            return True
        if answer.status == 404 and "no such container" in answer.message.lower():
            return False
        self._delete(made, force=True)
        raise failure_of(answer.message, instance_id)

    def gateways(self, networks: Sequence[str]) -> dict[str, str]:
        """See `Runtime.gateways`."""
        found = {name: self._networks.gateway(network_name(self._owner, name)) for name in networks}
        return {name: address for name, address in found.items() if address}

    def stop(self, instance_id: str, number: int, grace_s: float) -> Settled | None:
        """Mark a running instance and ask it to end; return when it is to be killed, None if it does not run."""
        sighting = self.look.best(instance_id)
        if sighting is None or not sighting.is_alive:
            return None
        deadline_ms, asked = deadline_after(grace_s), sighting.mark
        if asked is not None:
            deadline_ms = min(deadline_ms, asked.deadline_ms)
        mark = StopMark(sighting.run, number, deadline_ms)
        if mark != asked:
            name = container_name(self._owner, instance_id) + mark.ending
            if not self._rename(sighting.container, name):
                return None
        if asked is None or asked.signal != number:
            self._ask(sighting, mark)
        return Settled(sighting.container, sighting.run, deadline_ms)

    def _ask(self, sighting: Sighting, mark: StopMark) -> None:
        """Send the signal: through the engine's own stop where that means the same, for it goes on without us."""
        name = signals.Signals(mark.signal).name
        if name != sighting.stop_signal or mark.signal == signals.SIGKILL:
            self._send(sighting.container, name)
            return
        left_s = max(0, mark.deadline_ms - boot_ms()) // 1000 + 1 + _ENGINE_LATER_S
        path = f"/containers/{part(sighting.container)}/stop"
        self._api.send_and_leave("POST", path, query={"t": str(left_s)}, wait_s=_STOP_WAIT_S)

    def signal(self, instance_id: str, name: str) -> None:
        """See `Runtime.signal`."""
        sighting = self.look.best(instance_id)
        if sighting is not None and sighting.is_alive:
            self._send(sighting.container, name)

    def kill(self, settled: Settled) -> bool:
        """Kill a run; tell whether it has ended, which the one that is killed now has not yet."""
        sighting = self.look.one(settled.container)
        if sighting is None or sighting.run != settled.run or not sighting.is_alive:
            return True
        self._send(settled.container, "SIGKILL")
        return False

    def remove(self, instance_id: str) -> None:
        """See `Runtime.remove`."""
        for sighting in self.look.all(instance_id).get(instance_id, []):
            self._delete(sighting.container, force=True)
        self._networks.tidy()

    @staticmethod
    def is_loose(sightings: Sequence[Sighting]) -> bool:
        """Tell whether `settle` has something to put right among an instance's containers."""
        return len(sightings) > 1 or sightings[0].is_fresh or sightings[0].is_new

    def settle(self, instance_id: str) -> Settled | None:
        """Finish what was left undone: a half start, one container too many, a stop that nobody sees to."""
        sightings = self.look.all(instance_id).get(instance_id, [])
        if not sightings:
            return None
        best, *others = sightings
        for sighting in others:
            self._delete(sighting.container, force=True)
        if best.is_fresh:
            self._delete(best.container, force=best.status == "initialized")
            self._networks.tidy()
            return None
        if best.is_new:
            self._rename(best.container, container_name(self._owner, instance_id))
        if best.mark is None or not best.is_alive:
            return None
        if best.status != "stopping":
            # Who asked may have died before the signal was sent; asked twice is better than never.
            self._ask(best, best.mark)
        return Settled(best.container, best.run, best.mark.deadline_ms)

    def execute(self, instance_id: str, command: tuple[str, ...], timeout_s: float) -> ExecResult:
        """See `Runtime.execute`."""
        if not command:
            return ExecResult(NOT_THERE, b"no command")
        sighting = self.look.best(instance_id)
        if sighting is None or not sighting.is_alive:
            return ExecResult(NOT_THERE, f"{instance_id} does not run".encode())
        return execute(
            self._api,
            sighting.container,
            command,
            timeout_s=timeout_s,
            sees_processes=self.look.sees_processes(),
        )

    def logs(self, instance_id: str, tail_bytes: int) -> bytes:
        """See `Runtime.logs`. The whole file is read: Podman counts pieces of long lines as lines of a tail."""
        sighting = self.look.best(instance_id)
        limit = min(tail_bytes, sighting.log_bytes) if sighting is not None else 0
        if sighting is None or limit <= 0:
            return b""
        path = f"/containers/{part(sighting.container)}/logs"
        kept = bytearray()
        with self._api.request(
            "GET", path, query={"stdout": "1", "stderr": "1"}, timeout_s=_LOG_READ_LIMIT_S
        ) as stream:
            if stream.status != 200:
                said = Answer(stream.status, stream.read_all(1 << 16))
                if said.status == 404:
                    return b""
                raise Unavailable("runtime.engine_failed", f"cannot read the log: {said.message}")
            for piece in payloads(stream.chunks()):
                kept += piece
                if len(kept) > 2 * limit + (1 << 16):
                    del kept[:-limit]
        return bytes(kept[-limit:])

    def output(self, instance_id: str, mark: str, limit: int) -> Output:
        """See `Runtime.output`."""
        sighting = self.look.best(instance_id)
        if sighting is None:
            return Output((), mark)
        return read_output(self._api, sighting.container, mark, limit)

    def _send(self, container: str, name: str) -> None:
        """Send a signal; that the container has just ended is fine."""
        answer = self._api.call("POST", f"/containers/{part(container)}/kill", query={"signal": name})
        if answer.is_good or answer.status in (404, 409):
            return
        sighting = self.look.one(container)
        if sighting is not None and sighting.is_alive:
            raise Unavailable("runtime.engine_failed", f"cannot signal a container: {answer.message}")

    def _rename(self, container: str, name: str) -> bool:
        """Rename; False when the container has gone."""
        answer = self._api.call("POST", f"/containers/{part(container)}/rename", query={"name": name})
        if not answer.is_good and answer.status != 404:
            raise Unavailable("runtime.engine_failed", f"cannot rename a container: {answer.message}")
        return answer.is_good

    def _delete(self, container: str, *, force: bool) -> None:
        """Remove a container with its anonymous volumes; without `force` one that runs stays.

        Raises:
            Unavailable: it is still there.
        """
        query = {"v": "1", "force": "1"} if force else {"v": "1"}
        answer: Answer | None = None
        for _ in range(3):
            answer = self._api.call(
                "DELETE", f"/containers/{part(container)}", query=query, timeout_s=_REMOVE_LIMIT_S
            )
            # Podman needs a second call for one whose conmon was killed; Docker says 409 while it is at it.
            if answer.is_good or answer.status == 404 or not force:
                return
        reason = answer.message if answer is not None else ""
        raise Unavailable("runtime.still_running", f"the engine cannot remove a container now: {reason}")
