"""A repository that is served, and a client that has its first root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.upstream import Client, Upstream, serving


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def client(tmp_path: Path, upstream: Upstream) -> Iterator[Client]:
    with serving(upstream) as url:
        made = Client(tmp_path, upstream, url)
        made.init()
        yield made
