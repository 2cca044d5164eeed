"""A command line of its own for a test: nothing of this machine's profile, logged in to a hub double or not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skerry.client.profile import Context, Profile, save_profile
from tests.unit.hub_double import TOKEN, HubDouble, serve_hub


def own_profile(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let commands keep their profile in a file below `directory`, which is not there yet; return it."""
    for name in ("SKERRY_HUB", "SKERRY_ROOT", "SKERRY_TOKEN_FILE", "SKERRY_CONTEXT", "SKERRY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    config = directory / "private" / "config.json"
    monkeypatch.setenv("SKERRY_CONFIG", str(config))
    return config


def log_in(config: Path, hub: HubDouble) -> None:
    """Write what `skerry login` writes."""
    context = Context(hub=hub.url, root=hub.root, ca_pem=hub.ca_pem, token=TOKEN)
    save_profile(config, Profile().with_context("default", context))


@contextmanager
def logged_in_hub(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[HubDouble]:
    """Serve a hub double to which commands are logged in."""
    config = own_profile(directory, monkeypatch)
    with serve_hub(directory) as hub:
        log_in(config, hub)
        yield hub
