"""Broker by nats-server: MQTT for applications, its own protocol beside it, and JetStream for what is kept.

A pattern becomes subjects of NATS: `/` is `.`, `+` is `*`, and `a/#` is both `a` and `a.>`. As levels have letters,
digits, `_` and `-` alone and the first is spelled out, no pattern names a subject that begins with `$` or `_`: those of
the server, of its store and of its answers. Accounts are in the configuration, in memory; a hang-up signal makes the
server read it again. An account that is drawn anew each time shows when it has. Who may read less than before is cut
off for a moment: a subscription of MQTT with quality of service 1 would go on.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skerry.adapters.broker_process import (
    ProcessBroker,
    check_listening,
    find_program,
    memory_of,
)
from skerry.kit.durable import write_file
from skerry.ports.broker import BrokerSettings, BusAccount

_NOWHERE = "127.0.0.1"
_CHECK = "skerry-check"
_ACK_WAIT = "5s"  # what was delivered and not acknowledged comes again after this, at once it never does


class _Allowed(msgspec.Struct):
    allow: list[str] = []


class _Permissions(msgspec.Struct):
    subscribe: _Allowed


class _User(msgspec.Struct):
    user: str
    permissions: _Permissions


class _Authorization(msgspec.Struct):
    users: list[_User]


class _Written(msgspec.Struct):
    """What the look for narrowed rights needs of a configuration of ours."""

    authorization: _Authorization


def subjects_of(pattern: str) -> tuple[str, ...]:
    """Return the subjects of NATS that mean what a pattern means."""
    levels = pattern.split("/")
    stem = ["*" if level == "+" else level for level in levels if level != "#"]
    subject = ".".join(stem)
    return (subject, f"{subject}.>") if levels[-1] == "#" else (subject,)


class NatsBroker(ProcessBroker):
    """A nats-server that outlives the agent."""

    name = "nats"

    async def apply(self, settings: BrokerSettings) -> None:
        """See `Broker.apply`."""
        check_listening(settings)
        labels = await self._process.labels()
        if labels is not None and self._held == settings:
            return
        file = memory_of(self._folders) / "nats.conf"
        check = BusAccount(user=_CHECK, password=secrets.token_urlsafe(32))
        if labels is not None and (labels.get("fixed") != _fixed(settings) or not file.exists()):
            await self._process.end()
            labels = None
        if labels is None:
            self._write(file, settings, settings.accounts, check)
            command = (str(find_program("nats-server")), "--config", str(file))
            await self._process.start(command, {"fixed": _fixed(settings)})
            await self._process.until_entered(settings, check)
        else:
            stay = _not_narrowed(file, settings.accounts)
            if len(stay) < len(settings.accounts):
                await self._reload(file, settings, stay)
            await self._reload(file, settings, settings.accounts)
        self._held = settings

    async def _reload(self, file: Path, settings: BrokerSettings, accounts: Sequence[BusAccount]) -> None:
        check = BusAccount(user=_CHECK, password=secrets.token_urlsafe(32))
        self._write(file, settings, accounts, check)
        await self._process.signal("SIGHUP")
        await self._process.until_entered(settings, check)

    def _write(
        self, file: Path, settings: BrokerSettings, accounts: Sequence[BusAccount], check: BusAccount
    ) -> None:
        configuration = self._configuration(settings, [*accounts, check])
        write_file(file, msgspec.json.encode(configuration), sync=False)

    def _configuration(self, settings: BrokerSettings, accounts: Sequence[BusAccount]) -> dict[str, object]:
        """Return the server's configuration, which may be written as JSON.

        Source: https://docs.nats.io/running-a-nats-service/configuration
        """
        users = [_user(account) for account in accounts]
        mqtt: dict[str, object] = {"host": settings.listen, "port": settings.port, "ack_wait": _ACK_WAIT}
        configuration: dict[str, object] = {
            "server_name": "skerry",
            # The protocol of NATS cannot be left out; without a port of ours it is where nobody knows.
            "host": settings.listen if settings.native_port else _NOWHERE,
            "port": settings.native_port or -1,
            "max_payload": settings.message_bytes,
            "max_connections": 1024,
            "jetstream": {
                "store_dir": str(self._folders.data / "jetstream"),
                "max_memory_store": 16 << 20,
                "max_file_store": settings.stored_bytes,
                # What is acknowledged survives the end of the process at once, and a power cut after this.
                "sync_interval": "10s",
            },
            "authorization": {"timeout": 5, "users": users},
            "mqtt": mqtt,
        }
        if settings.tls is not None:
            tls = {
                "cert_file": str(settings.tls.certificate),
                "key_file": str(settings.tls.key),
                "timeout": 5,
            }
            configuration["tls"] = tls
            mqtt["tls"] = tls
        return configuration


def _user(account: BusAccount) -> dict[str, object]:
    return {
        "user": account.user,
        "password": account.password,
        "permissions": {
            "publish": {"allow": _subjects(account.publish)} if account.publish else {"deny": [">"]},
            "subscribe": {"allow": _subjects(account.subscribe)} if account.subscribe else {"deny": [">"]},
        },
        "allowed_connection_types": ["MQTT", "STANDARD"],
    }


def _subjects(patterns: tuple[str, ...]) -> list[str]:
    return [subject for pattern in patterns for subject in subjects_of(pattern)]


def _not_narrowed(file: Path, accounts: Sequence[BusAccount]) -> tuple[BusAccount, ...]:
    """Return the accounts that may still read all that they could by the configuration in a file."""
    held = msgspec.json.decode(file.read_bytes(), type=_Written)
    before = {user.user: set(user.permissions.subscribe.allow) for user in held.authorization.users}
    return tuple(a for a in accounts if before.get(a.user, set()) <= set(_subjects(a.subscribe)))


def _fixed(settings: BrokerSettings) -> str:
    """Return what the server does not take anew while it runs."""
    tls = settings.tls
    return (
        f"{settings.listen} {settings.port} {settings.native_port} {settings.stored_bytes} {tls is not None}"
    )
