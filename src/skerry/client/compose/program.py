"""What a service runs and how: image, command, environment, user, confinement, health, and its end."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

from skerry.client.compose.draft import Draft
from skerry.client.compose.measures import convert_signal, format_span, parse_span
from skerry.client.compose.nodes import Node
from skerry.client.images.references import parse_reference
from skerry.kit.errors import Rejected
from skerry.spec.checks_container import CAPABILITIES

# Docker's default set: moby, oci/caps/defaults.go.
DEFAULT_CAPABILITIES: tuple[str, ...] = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_secret_re = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|(^|_)KEY$|APIKEY|API_KEY|PRIVATE", re.IGNORECASE)
_START_PERIOD_S = 5.0


def read_image(node: Node, draft: Draft, platform: str) -> None:
    """Set `image`, of one platform where the service names one."""
    name = node.text()
    if not name:
        return
    if re.search(r"\s", name):
        node.problem("an image's name has no spaces", "write REGISTRY/NAME:TAG")
        return
    if "@" not in name and (":" not in name.rpartition("/")[2] or name.endswith(":latest")):
        node.note(
            "the image has no version of its own: the release pins what the name gives when it is pushed"
        )
    source = f"engine:{name}"
    if draft.options.image_source == "docker":
        try:
            source = parse_reference(name).text
        except Rejected as error:
            node.problem(error.message, error.hint)
    if not platform:
        draft.fields["image"] = {"source": source}
        return
    variant = re.sub(r"[^a-z0-9]+", "-", platform.lower()).strip("-")
    draft.fields["image"] = {"variants": [{"name": variant, "source": source, "platform": platform}]}


def read_commands(entrypoint: Node | None, command: Node | None, draft: Draft) -> None:
    """Set `command` and `args` from the entry point and the command."""
    entry = _words(entrypoint) if entrypoint else None
    arguments = _words(command) if command else None
    if entry == [] and entrypoint:
        if not arguments:
            entrypoint.problem(
                "the entry point is emptied, and no command is given", "write what is to be run"
            )
        entry, arguments = arguments, None
    if arguments == [] and command and entry is None:
        command.problem("the image's arguments cannot be emptied alone", "write the whole entrypoint")
    if entry:
        draft.fields["command"] = entry
    if arguments:
        draft.fields["args"] = arguments


def _words(node: Node, *, references: bool = True) -> list[str] | None:
    """Return the words of a list, or of a text as a shell would split it; None where nothing is said."""
    if node.value is None:
        return None
    if node.is_list():
        return [item.text(references=references) for item in node.items()]
    try:
        return shlex.split(node.text(references=references))
    except ValueError as error:
        node.problem(f"cannot be split into words: {str(error).lower()}", "write it as a list")
        return None


def read_environment(node: Node, draft: Draft) -> None:
    """Set `env` from a mapping or a list; a bare name takes its value from the variables."""
    env: dict[str, str] = {}
    if node.is_mapping():
        for name, value in node.entries():
            env[name] = value.text(references=True) if value.value is not None else _inherited(value, name)
    else:
        for item in node.items():
            text = item.text(references=True)
            name, equals, rest = text.partition("=")
            if name:
                env[name] = rest if equals else _inherited(item, name)
    for name, text in env.items():
        if _secret_re.search(name) and text and not text.startswith("${site."):
            node.note(f"{name} looks like a secret, and whoever reads the release can read it")
    draft.fields["env"] = env


def _inherited(node: Node, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        node.problem("not a name of a variable", "letters, digits and _, no digit first")
        return ""
    bare = Node(f"${{{name}}}", node.place, node.path, node.reading)
    return bare.text(references=True)


def read_confinement(keys: dict[str, Node], draft: Draft) -> None:
    """Set `container`: user, directory, root file system, capabilities, first process."""
    container = draft.container
    if "user" in keys and (user := keys["user"].text()):
        container["user"] = user
    if "working_dir" in keys and (directory := keys["working_dir"].text()):
        container["working_directory"] = directory
    if not ("read_only" in keys and keys["read_only"].truth()):
        container["read_only"] = False
    if capabilities := _capabilities(keys.get("cap_add"), keys.get("cap_drop"), draft):
        container["capabilities"] = capabilities
    if "shm_size" in keys:
        draft.set_size(container, "shared_memory", keys["shm_size"])
    if "init" in keys and keys["init"].truth():
        container["init"] = True
    for option in keys["security_opt"].items() if "security_opt" in keys else []:
        if option.text().replace("=", ":") not in ("no-new-privileges", "no-new-privileges:true", ""):
            option.problem(
                "has no counterpart in an Application", "no-new-privileges holds for every component"
            )


def _capabilities(add: Node | None, drop: Node | None, draft: Draft) -> list[str]:
    kept = set(DEFAULT_CAPABILITIES) if draft.options.keep_default_capabilities else set[str]()
    for item in drop.items() if drop else []:
        name = item.text().upper().removeprefix("CAP_")
        if name == "ALL":
            kept.clear()
        elif name and name not in CAPABILITIES:
            item.problem(f"unknown capability {name[:40]}", "see capabilities(7)")
        kept.discard(name)
    for item in add.items() if add else []:
        name = item.text().upper().removeprefix("CAP_")
        if name == "ALL":
            item.problem("has no counterpart in an Application", "name the capabilities it needs")
        elif name and name not in CAPABILITIES:
            item.problem(f"unknown capability {name[:40]}", "see capabilities(7)")
        elif name:
            kept.add(name)
    return sorted(kept)


def read_end(keys: dict[str, Node], draft: Draft) -> None:
    """Set `stop`."""
    if "stop_signal" in keys and (text := keys["stop_signal"].text()):
        try:
            draft.stop["signal"] = convert_signal(text)
        except ValueError as error:
            keys["stop_signal"].problem(str(error), "TERM, INT, QUIT, HUP, USR1 or USR2")
    if "stop_grace_period" in keys and (seconds := _span(keys["stop_grace_period"])) is not None:
        draft.stop["grace"] = format_span(seconds)


def read_health(node: Node, draft: Draft) -> None:
    """Set `probes` from the health check: readiness, and a start-up probe for its start period."""
    keys = node.mapped("services.*.healthcheck")
    if ("disable" in keys and keys["disable"].truth()) or "test" not in keys:
        if keys.keys() - {"disable", "test"} and "test" not in keys:
            node.problem("has no test", "the test of the image is not known here: write it out")
        return
    if not (command := _test_command(keys["test"])):
        return
    timeout, period = _given(keys, "timeout", 30.0), _given(keys, "interval", 30.0)
    failures = read_count(keys["retries"], 1, 10_000) if "retries" in keys else 3
    probe: dict[str, Any] = {"exec": {"command": command}}
    probes = {"readiness": {**probe, **_timing(period, timeout, failures or 3)}}
    if start_s := _given(keys, "start_period", 0.0):
        start_every = _given(keys, "start_interval", _START_PERIOD_S)
        patience = min(10_000, math.ceil(start_s / start_every) + (failures or 3))
        probes = {"startup": {**probe, **_timing(start_every, timeout, patience)}, **probes}
    draft.fields["probes"] = probes


def _timing(period: float, timeout: float, failures: int) -> dict[str, Any]:
    return {"period": format_span(period), "timeout": format_span(timeout), "failures": failures}


def _test_command(node: Node) -> list[str]:
    if not node.is_list():
        text = node.text()
        return _without_references(node, ["/bin/sh", "-c", text]) if text else []
    kind, *words = [item.text() for item in node.items()] or [""]
    if kind == "NONE":
        return []
    if kind == "CMD-SHELL" and len(words) == 1:
        return _without_references(node, ["/bin/sh", "-c", words[0]])
    if kind == "CMD" and words:
        return _without_references(node, words)
    node.problem("cannot be read", "begin with CMD and a program, CMD-SHELL and one line, or NONE")
    return []


def _without_references(node: Node, words: list[str]) -> list[str]:
    if any("${" in word for word in words):
        node.problem(
            "${ would stand in the command itself, where Skerry has its own references", "write $$NAME"
        )
    return words


def _given(keys: dict[str, Node], name: str, default: float) -> float:
    """Return a duration; 0 says the default in Compose."""
    return (_span(keys[name]) if name in keys else None) or default


def _span(node: Node) -> float | None:
    text = node.text()
    if not text or text == "0":
        return 0.0 if text else None
    try:
        seconds = parse_span(text)
    except ValueError as error:
        node.problem(str(error), "write 500ms, 90s or 1m30s")
        return None
    if seconds > 366 * 86400:
        node.problem("longer than a year", "write 500ms, 90s or 1m30s")
        return None
    return seconds


def read_count(node: Node, least: int, most: int) -> int | None:
    """Return a whole number within bounds; None, and a problem, for anything else."""
    text = node.text()
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,12}", text) or not least <= int(text) <= most:
        node.problem(f"expected a whole number from {least} to {most}", "")
        return None
    return int(text)
