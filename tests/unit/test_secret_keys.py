"""The key that opens all stored secrets: where it is kept, and going from one to the next."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.key_file import ENVIRONMENT, KeyFile
from skerry.adapters.sql.store import SqlHubStore
from skerry.hub.secret_keeping import key_context
from skerry.hub.secret_rekeying import rekey
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.hub_store import Audit
from skerry.ports.key_encryption import Wrapped
from skerry.ports.secrets import SecretRecord
from skerry.testing.clock import SimulatedClock
from skerry.testing.faults import FaultPlan, PowerCut
from skerry.testing.hub_parts import memory_hub

pytestmark = pytest.mark.secrets


class KilledKeys(KeyFile):
    """A key file whose writes may be the last thing that happens."""

    plan = FaultPlan()

    def add(self) -> None:
        with self.plan.around("add"):
            super().add()

    def drop_older(self) -> None:
        with self.plan.around("drop_older"):
            super().drop_older()


class KilledStore(SqlHubStore):
    """A store that may be cut off when keys are wrapped."""

    plan = FaultPlan()

    def rewrap_secrets(self, wrapped: Mapping[str, Wrapped]) -> None:
        with self.plan.around("rewrap_secrets"):
            super().rewrap_secrets(wrapped)


def stored(folder: Path) -> tuple[KilledStore, Callable[[], list[bytes]]]:
    """Return a store with three versions, and what reads their values with the file that is there then."""
    store = KilledStore.open(None)
    assert isinstance(store, KilledStore)
    hub = memory_hub(folder, SimulatedClock(), store=store)
    from skerry.spec.api_secret import SecretRequest

    for name in ("a", "b", "c"):
        asked = SecretRequest(value=base64.b64encode(f"value {name}".encode()).decode())
        record = hub.secrets.prepare(name, asked, "test")
        store.add_secret_version(record, Audit(at=record.created_at, who="", action="", subject=""))

    def values() -> list[bytes]:
        keys = KeyFile.find(folder / "keys", {})

        def value(record: SecretRecord) -> bytes:
            keys.unwrap(Wrapped(record.key_id, record.wrapped), key_context(record.id))
            hub.secrets._keys = keys  # pyright: ignore[reportPrivateUsage]
            return hub.secrets.value(record)

        return [value(record) for record in store.secret_versions()]

    return store, values


@pytest.mark.rule("SECRET-5")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("step", (1, 2, 3))
def test_a_kill_at_any_step_of_another_key_loses_nothing_and_the_next_attempt_ends_it(
    tmp_path: Path, step: int, when: Any
) -> None:
    store, values = stored(tmp_path)
    before = values()
    old = KeyFile.find(tmp_path / "keys", {}).newest()
    plan = FaultPlan().kill(nth=step, when=when)
    KilledStore.plan = KilledKeys.plan = plan
    audit = Audit(at=SimulatedClock().now(), who="test", action="secrets.rekey", subject="hub")
    with pytest.raises(PowerCut):
        rekey(store, KilledKeys(tmp_path / "keys" / "keys" / "secrets.key", own=True), audit)
    plan.restore_power()
    assert values() == before
    keys = KeyFile.find(tmp_path / "keys", {})
    rekey(store, keys, audit)
    assert values() == before
    assert not KeyFile.find(tmp_path / "keys", {}).several
    assert {record.key_id for record in store.secret_versions()} == {keys.newest()} != {old}
    store.close()


def test_a_key_that_somebody_else_provides_is_used_and_never_written(tmp_path: Path) -> None:
    made = KeyFile(tmp_path / "made.key", own=True)
    made.newest()
    given = tmp_path / "given.key"
    given.write_bytes(made.path.read_bytes())
    keys = KeyFile.find(tmp_path, {ENVIRONMENT: str(given)})
    assert keys.newest() == made.newest()
    with pytest.raises(Rejected):
        keys.add()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "skerry-secrets-key").write_bytes(given.read_bytes())
    assert KeyFile.find(tmp_path, {"CREDENTIALS_DIRECTORY": str(credentials)}).newest() == made.newest()
    with pytest.raises(Unavailable):
        KeyFile.find(tmp_path, {ENVIRONMENT: str(tmp_path / "absent")}).newest()
    for content in (b"", b"nonsense", b"skerry-secrets-key-1 AAAA\n", given.read_bytes() + b"more\n"):
        given.write_bytes(content)
        with pytest.raises(Unavailable) as caught:
            KeyFile(given, own=False).newest()
        assert made.path.read_text().split()[1] not in str(caught.value)
    assert made.path.stat().st_mode & 0o777 == 0o600
