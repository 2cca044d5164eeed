"""What the surroundings tell the application: where to listen and where the model lies.

The values come from environment variables alone, because that is how the host hands them over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(Exception):
    """A variable is missing or unusable; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen (`host`, `port`) and the directory with `model.onnx` and `model.json`."""

    host: str
    port: int
    model_dir: Path


def parse_settings(env: Mapping[str, str]) -> Settings:
    """Read `SKERRY_PORT_HTTP`, `SKERRY_MODEL_DIGITS` and, optionally, `SKERRY_HOST`.

    Raises:
        SettingsError: a variable is missing, or the port is no number from 1 to 65535.
    """
    port_text = _wanted(env, "SKERRY_PORT_HTTP")
    # isascii: str.isdigit alone also says yes to superscripts, which int() refuses.
    if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text) <= 65535):
        raise SettingsError(f"SKERRY_PORT_HTTP is {port_text!r}, wanted a number from 1 to 65535")
    return Settings(
        host=env.get("SKERRY_HOST") or "127.0.0.1",
        port=int(port_text),
        model_dir=Path(_wanted(env, "SKERRY_MODEL_DIGITS")),
    )


def _wanted(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set")
    return value
