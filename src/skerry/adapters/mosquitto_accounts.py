"""Accounts as mosquitto's dynamic-security plugin keeps them, and the commands that change them.

The plugin reads its file when it starts, changes it by itself, and takes commands at a topic of its own. Each account
is a client with one role of the same name. Passwords are there as PBKDF2 with SHA-512.

Source: https://mosquitto.org/documentation/dynamic-security/
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from skerry.ports.broker import BusAccount

CONTROL = "$CONTROL/dynamic-security/v1"
# The passwords are random and as long as a key: nobody guesses them however fast this is.
_ITERATIONS = 101
_ACCESS = {
    "publishClientSend": False,
    "publishClientReceive": False,
    "subscribe": False,
    "unsubscribe": True,
}

Acl = dict[str, object]


class _Client(msgspec.Struct):
    username: str
    password: str = ""
    salt: str = ""
    iterations: int = 0


class _Role(msgspec.Struct):
    rolename: str
    acls: list[Acl] = []


class _File(msgspec.Struct):
    clients: list[_Client] = []
    roles: list[_Role] = []


def whole_file(admin: BusAccount, accounts: Sequence[BusAccount]) -> bytes:
    """Return the plugin's file with these accounts, of which `admin` may change all others."""
    control: list[Acl] = [
        _acl("publishClientSend", f"{CONTROL}/#"),
        _acl("publishClientReceive", f"{CONTROL}/#"),
        _acl("subscribePattern", f"{CONTROL}/#"),
    ]
    everyone = [(admin, control), *((account, acls_of(account)) for account in accounts)]
    return msgspec.json.encode(
        {
            "defaultACLAccess": _ACCESS,
            "clients": [
                {"username": one.user, "roles": [{"rolename": one.user}], **_hashed(one.password)}
                for one, _ in everyone
            ],
            "groups": [],
            "roles": [{"rolename": one.user, "acls": acls} for one, acls in everyone],
        }
    )


def acls_of(account: BusAccount) -> list[Acl]:
    """Return what an account may do. What it may read is looked at when it asks, and for each message again."""
    return [
        *(_acl("publishClientSend", pattern) for pattern in account.publish),
        *(_acl("publishClientReceive", pattern) for pattern in account.subscribe),
        *(_acl("subscribePattern", pattern) for pattern in account.subscribe),
    ]


def changes(held: bytes, admin: str, accounts: Sequence[BusAccount]) -> list[dict[str, object]]:
    """Return the commands after which the plugin, whose file is `held`, has exactly these accounts.

    Who has not changed is not named: a command about an account ends its connections.
    """
    file = msgspec.json.decode(held, type=_File)
    clients = {client.username: client for client in file.clients if client.username != admin}
    roles = {role.rolename: role.acls for role in file.roles if role.rolename != admin}
    commands: list[dict[str, object]] = []
    for account in accounts:
        name, acls = account.user, acls_of(account)
        if name not in roles:
            commands.append({"command": "createRole", "rolename": name, "acls": acls})
        elif _comparable(roles[name]) != _comparable(acls):
            commands.append({"command": "modifyRole", "rolename": name, "acls": acls})
        if name not in clients:
            whole = {"username": name, "password": account.password, "roles": [{"rolename": name}]}
            commands.append({"command": "createClient", **whole})
        elif not _opens(clients[name], account.password):
            commands.append({"command": "setClientPassword", "username": name, "password": account.password})
    wanted = {account.user for account in accounts}
    commands.extend({"command": "deleteClient", "username": name} for name in clients.keys() - wanted)
    commands.extend({"command": "deleteRole", "rolename": name} for name in roles.keys() - wanted)
    return commands


def refusals(answer: bytes) -> list[str]:
    """Return what went wrong of the commands, in the plugin's words."""
    decoded = msgspec.json.decode(answer, type=dict[str, list[dict[str, object]]])
    return [str(one["error"]) for one in decoded.get("responses", []) if "error" in one]


def _acl(kind: str, topic: str) -> Acl:
    return {"acltype": kind, "topic": topic, "priority": 0, "allow": True}


def _comparable(acls: Sequence[Mapping[str, object]]) -> list[tuple[str, str]]:
    return sorted((str(acl["acltype"]), str(acl["topic"])) for acl in acls if acl.get("allow", True))


def _hashed(password: str) -> dict[str, object]:
    salt = secrets.token_bytes(12)
    return {
        "password": base64.b64encode(_derive(password, salt, _ITERATIONS)).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": _ITERATIONS,
    }


def _opens(client: _Client, password: str) -> bool:
    found = _derive(password, base64.b64decode(client.salt), client.iterations or 1)
    return hmac.compare_digest(base64.b64decode(client.password), found)


def _derive(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
