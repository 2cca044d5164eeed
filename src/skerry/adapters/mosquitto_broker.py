"""Broker by mosquitto with its dynamic-security plugin, for sites that need MQTT 5.

Accounts are changed by commands, of which only those they name notice anything. mosquitto writes what it keeps every
few seconds and when it ends: a kill or a power cut takes what came since.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import queue
import secrets
from pathlib import Path

import msgspec

from skerry.adapters.broker_process import (
    ProcessBroker,
    check_listening,
    find_program,
    memory_of,
    place_of,
)
from skerry.adapters.mosquitto_accounts import CONTROL, changes, refusals, whole_file
from skerry.adapters.mqtt_client import MqttClient
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable
from skerry.ports.broker import BrokerSettings, BusAccount

_ADMIN = "skerry-admin"
_ANSWER_S = 10.0
_SAVE_S = 5
_PLUGIN = "mosquitto_dynamic_security.so"
_PLACES = ("/usr/lib", "/usr/local/lib", "/usr/lib64", "/opt")


class MosquittoBroker(ProcessBroker):
    """A mosquitto that outlives the agent."""

    name = "mosquitto"

    async def apply(self, settings: BrokerSettings) -> None:
        """See `Broker.apply`."""
        check_listening(settings)
        labels = await self._process.labels()
        if labels is not None and self._held == settings:
            return
        memory = memory_of(self._folders)
        admin = _load_admin(memory)
        fresh = labels is None or labels.get("fixed") != _fixed(settings) or admin is None
        if labels is not None and fresh:
            await self._process.end()
        if fresh or admin is None:
            admin = await self._start(settings, memory)
        elif self._held is None or self._held.tls != settings.tls:
            # So it takes the files of its certificate anew.
            await self._process.signal("SIGHUP")
            await self._process.until_entered(settings, admin)
        commands = changes((memory / "dynsec.json").read_bytes(), _ADMIN, settings.accounts)
        if commands:
            await asyncio.to_thread(_command, settings, admin, commands)
        self._held = settings

    async def _start(self, settings: BrokerSettings, memory: Path) -> BusAccount:
        program, plugin = find_program("mosquitto"), _find_plugin()
        admin = BusAccount(user=_ADMIN, password=secrets.token_urlsafe(32))
        write_file(memory / "dynsec.json", whole_file(admin, settings.accounts), sync=False)
        write_file(memory / "mosquitto.conf", self._configuration(settings, memory, plugin), sync=False)
        write_file(memory / "admin", admin.password.encode(), sync=False)
        command = (str(program), "-c", str(memory / "mosquitto.conf"))
        await self._process.start(command, {"fixed": _fixed(settings)})
        await self._process.until_entered(settings, admin)
        return admin

    def _configuration(self, settings: BrokerSettings, memory: Path, plugin: Path) -> bytes:
        """Return the configuration. Source: https://mosquitto.org/man/mosquitto-conf-5.html ."""
        lines = [
            f"user {pwd.getpwuid(os.geteuid()).pw_name}",
            "allow_anonymous false",
            "per_listener_settings false",
            f"plugin {plugin}",
            f"plugin_opt_config_file {memory / 'dynsec.json'}",
            "persistence true",
            f"persistence_location {self._folders.data}/",
            f"autosave_interval {_SAVE_S}",
            "persistent_client_expiration 14d",
            "max_queued_messages 10000",
            f"max_queued_bytes {settings.stored_bytes // 8}",
            f"memory_limit {settings.stored_bytes}",
            f"message_size_limit {settings.message_bytes}",
            "log_dest stdout",
            "log_type error",
            "log_type warning",
            f"listener {settings.port} {settings.listen}",
            "max_connections 1024",
        ]
        if settings.tls is not None:
            lines += [
                f"certfile {settings.tls.certificate}",
                f"keyfile {settings.tls.key}",
            ]
        return "\n".join([*lines, ""]).encode()


def _find_plugin() -> Path:
    for place in _PLACES:
        found = sorted(Path(place).glob(f"**/{_PLUGIN}"))
        if found:
            return found[0]
    raise Unavailable("broker.missing", f"{_PLUGIN} is not on this host", hint="it comes with mosquitto 2")


def _load_admin(memory: Path) -> BusAccount | None:
    try:
        password = (memory / "admin").read_text(encoding="ascii")
    except OSError:
        return None
    return BusAccount(user=_ADMIN, password=password) if (memory / "dynsec.json").exists() else None


def _command(settings: BrokerSettings, admin: BusAccount, commands: list[dict[str, object]]) -> None:
    answers: queue.Queue[bytes] = queue.Queue(maxsize=16)
    client = MqttClient()
    client.open(place_of(settings, admin), take=lambda message: answers.put(message.payload, timeout=1.0))
    try:
        client.subscribe([f"{CONTROL}/response"])
        client.publish(CONTROL, msgspec.json.encode({"commands": commands}))
        wrong = refusals(answers.get(timeout=_ANSWER_S))
    except queue.Empty:
        raise Unavailable("broker.unready", "mosquitto does not answer its control topic") from None
    finally:
        client.close()
    if wrong:
        raise Unavailable("broker.unready", f"mosquitto does not take its accounts: {wrong[0]}")


def _fixed(settings: BrokerSettings) -> str:
    return f"{settings.listen} {settings.port} {settings.stored_bytes} {settings.tls is not None}"
