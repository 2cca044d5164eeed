"""The hub's database over kills, full disks, damage and other versions."""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Rejected, Unavailable
from tests.contract.crashing import HOSTS
from tests.contract.hub_records import audit, populate, report
from tests.contract.killed import run_and_kill
from tests.contract.tiny_disk import fill, tiny_disk


@pytest.mark.rule("SYNC-3")
@pytest.mark.parametrize("linger_s", (0.0, 0.05, 0.3))
def test_what_was_acknowledged_before_a_kill_is_there_after_it_once(tmp_path: Path, linger_s: float) -> None:
    path = tmp_path / "hub.db"
    acknowledged: dict[str, int] = defaultdict(int)
    for line in run_and_kill("hub", path, lines=20, linger_s=linger_s):
        host, sequence = line.split()
        acknowledged[host] = max(acknowledged[host], int(sequence))
    store = SqlHubStore.open(path)
    for host in HOSTS:
        stored = store.host(host)
        assert stored is not None
        assert acknowledged[host] <= stored.sequence <= acknowledged[host] + 1
        told = [int(record.event.message) for record in store.events(host=host, limit=1_000_000)]
        assert told == list(range(stored.sequence, 1, -1)), "a report and its events go together, once"
    assert store.apply_reports([report(10**6)]) == 10**6
    store.close()


def put_until_refused(store: SqlHubStore) -> tuple[int, Unavailable]:
    """Return how many settings were stored, and the error that came then."""
    for number in range(1000):
        try:
            store.put_setting(f"key-{number}", b"%d" % number * 5000)
        except Unavailable as error:
            return number, error
    raise AssertionError("the disk is too large")


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", size_bytes=4 << 20) as disk:
        store = SqlHubStore.open(disk / "hub.db")
        populate(store)
        for number in range(50):
            store.put_setting(f"early-{number}", b"%d" % number * 5000)
        ballast = fill(disk)
        stored, refusal = put_until_refused(store)
        assert (refusal.code, refusal.retryable) == ("disk.full", True)
        with pytest.raises(Unavailable):
            store.apply_reports([report(n) for n in range(2, 2000)])
        assert store.setting(f"key-{stored}") is None
        ballast.unlink()
        assert store.apply_reports([report(2)]) == 2
        store.put_setting("after", b"x" * 5000)
        store.close()

        reopened = SqlHubStore.open(disk / "hub.db")
        for kind, count in (("early", 50), ("key", stored)):
            for number in range(count):
                assert reopened.setting(f"{kind}-{number}") == b"%d" % number * 5000
        assert reopened.setting("after") == b"x" * 5000
        assert [record.event.message for record in reopened.events()] == ["2"]
        reopened.close()


def test_a_hub_that_cannot_start_on_a_full_disk_says_so_and_starts_later(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", size_bytes=2 << 20) as disk:
        ballast = fill(disk)
        with pytest.raises(Unavailable) as caught:
            SqlHubStore.open(disk / "hub.db")
        assert caught.value.code == "disk.full"
        ballast.unlink()
        SqlHubStore.open(disk / "hub.db").close()


def filled(path: Path) -> dict[Path, bytes]:
    """Make a database with a write-ahead log as a kill leaves it, and return both files' bytes."""
    source = path.with_name("source.db")
    store = SqlHubStore.open(source)
    for number in range(200):
        store.put_setting(f"key-{number}", random.Random(number).randbytes(3000))
    checkpoint = sqlite3.connect(source)
    checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.add_audit(audit())
    files = {
        path: source.read_bytes(),
        path.with_name("hub.db-wal"): source.with_name("source.db-wal").read_bytes(),
    }
    checkpoint.close()
    store.close()
    for file, content in files.items():
        file.write_bytes(content)
    return files


@pytest.mark.parametrize("damage", ("pages", "header", "cut", "text"))
def test_a_damaged_database_is_refused_and_left_untouched(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "hub.db"
    files = filled(path)
    content = bytearray(files[path])
    if damage == "pages":
        for page in range(4, len(content) // 4096, 3):
            content[page * 4096 : page * 4096 + 200] = b"\xa5" * 200
    elif damage == "header":
        content[:100] = bytes(100)
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[:] = b"This is not a database at all. " * 400
    files[path] = bytes(content)
    path.write_bytes(content)
    with pytest.raises(Rejected) as caught:
        SqlHubStore.open(path)
    assert caught.value.code == "hub.database_corrupt"
    assert str(path) in caught.value.hint
    assert {file: file.read_bytes() for file in files} == files


def test_a_log_that_a_kill_left_behind_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    filled(path)
    store = SqlHubStore.open(path)
    assert len(store.audits(9)) == 1
    store.close()


def test_a_database_of_a_newer_version_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    SqlHubStore.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Rejected) as caught:
        SqlHubStore.open(path)
    assert caught.value.code == "hub.database_newer"
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Rejected) as caught:
        SqlHubStore.open(path)
    assert caught.value.code == "hub.database_foreign"
    assert path.read_bytes() == before


def test_a_directory_that_is_not_there_is_said_to_be_the_trouble(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        SqlHubStore.open(tmp_path / "nowhere" / "hub.db")
    assert caught.value.code == "database.failed"
    assert "nowhere" in caught.value.message


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqlHubStore.open(tmp_path / "hub.db")
    store.close()
    with pytest.raises(Unavailable) as caught:
        store.put_setting("a", b"b")
    assert caught.value.code == "database.closed"
