"""Backing a hub up and bringing it back: what comes back, what is refused, and what faults leave."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from skerry.adapters import hub_restore
from skerry.adapters.backup_archive import ArchiveWriter, open_archive
from skerry.adapters.hub_backup import back_up
from skerry.adapters.key_file import KeyFile
from skerry.adapters.sql.snapshot import look_at
from skerry.adapters.sql.store import SqlHubStore
from skerry.cli.main import run
from skerry.hub.secret_keeping import SecretKeeper
from skerry.hub.wiring import console
from skerry.kit.digests import hex_of
from skerry.kit.errors import Conflict, Denied, Rejected, SkerryError, Unavailable, Untrusted
from skerry.kit.locking import hold
from skerry.ports.hub_store import Audit
from skerry.spec.api_secret import SecretRequest
from skerry.spec.backup import BackupEntry, RestoreView
from skerry.testing.clock import SimulatedClock
from skerry.trust.backup import Opening
from tests.contract.tiny_disk import fill, tiny_disk
from tests.unit.hub_to_back_up import KEY, LOCK, NOW, SECRET, job, make_backup, make_hub, put_blob

PROGRAM = Path(__file__).with_name("hub_to_back_up.py")


def silent(_done: int, _total: int) -> None:
    """Say nothing."""


def restore(
    file: Path, data: Path, *, secret: str = SECRET, dry_run: bool = False, revoke_tokens: bool = False
) -> RestoreView:
    opening = Opening(passphrase=secret)
    return console.restore(file, data, opening, dry_run=dry_run, revoke_tokens=revoke_tokens, tell=silent)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "hub"
    make_hub(made)
    return made


# ── what comes back ──────────────────────────────────────────────────────────────────────────────────────


def test_a_hub_comes_back_as_it_was_with_private_files(data: Path, tmp_path: Path) -> None:
    view = make_backup(data, tmp_path / "b")
    assert view.size_bytes == (tmp_path / "b").stat().st_size
    assert (view.manifest.sites, view.manifest.hosts, view.manifest.releases) == (
        {"zurich": 3},
        1,
        ("meter@1",),
    )
    restore(tmp_path / "b", tmp_path / "new")
    before, after = contents(data), contents(tmp_path / "new")
    for path, content in before.items():
        if path.startswith(("keys/", "tls/", "blobs/", "trust-root")):
            assert after[path] == content
    assert look_at(tmp_path / "new" / "hub.db").sites == {"zurich": 3}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "new").rglob("*"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == {"hub", "b", "new"}
    assert "backup.db" not in names(data)


def test_join_tokens_and_one_time_secrets_are_revoked_and_api_tokens_on_demand(
    data: Path, tmp_path: Path
) -> None:
    make_backup(data, tmp_path / "b")
    view = restore(tmp_path / "b", tmp_path / "new")
    assert (view.join_tokens_revoked, view.tokens_revoked, view.tokens_kept) == (1, 1, ("ann",))
    store = SqlHubStore.open(tmp_path / "new" / "hub.db")
    assert [token.name for token in store.tokens()] == ["ann"]
    assert store.audits(1)[0].action == "hub.restore"
    (record,) = store.recoveries()
    mark = store.restored()
    assert mark is not None
    assert (record.known, record.base, record.held_since) == (3, int(mark.restored_at.timestamp()), None)
    store.close()
    view = restore(tmp_path / "b", tmp_path / "other", revoke_tokens=True)
    assert (view.tokens_revoked, view.tokens_kept) == (2, ())


def test_without_blobs_the_documents_of_releases_are_kept(data: Path, tmp_path: Path) -> None:
    view = back_up(job(data, tmp_path / "b", blobs=False), silent)
    assert (view.manifest.blobs, view.manifest.whole) == (1, False)
    restore(tmp_path / "b", tmp_path / "new")
    found = console.examine(tmp_path / "new")
    (blobs,) = [finding for finding in found.findings if finding.check == "blobs"]
    assert blobs.level == "fail" and blobs.message.startswith("3 blobs")


def test_a_blob_that_rotted_is_named_and_left_out_and_the_rest_comes_back(data: Path, tmp_path: Path) -> None:
    digest = put_blob(data, b"to rot")
    name = hex_of(digest)
    (data / "blobs" / "sha256" / name[:2] / name).write_bytes(b"rotten")
    assert make_backup(data, tmp_path / "b").damaged == (digest,)
    assert restore(tmp_path / "b", tmp_path / "dry", dry_run=True).damaged == (digest,)
    assert restore(tmp_path / "b", tmp_path / "new").damaged == (digest,)
    assert not (tmp_path / "new" / "blobs" / "sha256" / name[:2] / name).exists()


def test_a_backup_made_while_the_hub_writes_is_of_one_moment(data: Path, tmp_path: Path) -> None:
    store = SqlHubStore.open(data / "hub.db")
    ends = threading.Event()

    def write() -> None:
        number = 0
        while not ends.is_set():
            number += 1
            store.put_setting("first", b"%d" % number)
            store.put_setting("second", b"%d" % number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for attempt in range(5):
            make_backup(data, tmp_path / f"b{attempt}")
    finally:
        ends.set()
        writer.join()
        store.close()
    for attempt in range(5):
        restore(tmp_path / f"b{attempt}", tmp_path / f"new{attempt}")
        found = SqlHubStore.open(tmp_path / f"new{attempt}" / "hub.db")
        first, second = (int(found.setting(key) or b"0") for key in ("first", "second"))
        found.close()
        assert first - second in (0, 1)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_ever_restored_over_something(data: Path, tmp_path: Path) -> None:
    make_backup(data, tmp_path / "b")
    before = contents(data)
    for target in (data, tmp_path / "b"):
        with pytest.raises(Conflict) as caught:
            restore(tmp_path / "b", target)
        assert caught.value.code == "restore.not_empty"
    assert contents(data) == before
    (tmp_path / "new.new").mkdir()
    (tmp_path / "new.new" / "mine").write_text("mine")
    with pytest.raises(Conflict):
        restore(tmp_path / "b", tmp_path / "new")
    assert (tmp_path / "new.new" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "b", tmp_path / "empty")
    assert (tmp_path / "empty" / "hub.db").exists()


def test_two_restores_and_two_backups_at_a_time_do_not_mix(data: Path, tmp_path: Path) -> None:
    make_backup(data, tmp_path / "b")
    with hold(data / "backup.lock", conflict=Conflict("x", "y")), pytest.raises(Conflict) as caught:
        make_backup(data, tmp_path / "c")
    assert caught.value.code == "backup.running"
    (tmp_path / "new.new").mkdir()
    mark = tmp_path / "new.new" / hub_restore.MARK
    with hold(mark, conflict=Conflict("x", "y")), pytest.raises(Conflict) as caught:
        restore(tmp_path / "b", tmp_path / "new")
    assert caught.value.code == "restore.running"
    assert not (tmp_path / "new").exists()
    restore(tmp_path / "b", tmp_path / "new")


@pytest.mark.rule("BACKUP-1")
def test_an_altered_backup_leaves_nothing_at_all(data: Path, tmp_path: Path) -> None:
    make_backup(data, tmp_path / "b")
    content = (tmp_path / "b").read_bytes()
    places = random.Random(7).sample(range(len(content)), 40)
    for place in (0, 17, len(content) - 1, *places):
        (tmp_path / "bad").write_bytes(
            content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
        )
        with pytest.raises((Untrusted, Denied, Rejected)):
            restore(tmp_path / "bad", tmp_path / "new")
        (tmp_path / "bad").write_bytes(content[:place])
        with pytest.raises((Untrusted, Denied, Rejected)):
            restore(tmp_path / "bad", tmp_path / "new")
        assert names(tmp_path) == {"hub", "b", "bad"}


@pytest.mark.rule("BACKUP-1")
@pytest.mark.parametrize(
    "path",
    (
        "../outside",
        "/etc/passwd",
        "keys/../../x",
        "hub.db-wal",
        "blobs/sha256/ab/" + "0" * 64,
        "hub.db\n",
        ".",
    ),
)
def test_no_path_of_a_backup_leads_anywhere_else(data: Path, tmp_path: Path, path: str) -> None:
    make_backup(data, tmp_path / "b")
    file = io.BytesIO()
    writer = ArchiveWriter(file, LOCK, KEY)
    with open_archive(tmp_path / "b", Opening(passphrase=SECRET)) as reader:
        writer.put_manifest(reader.manifest)
    writer.put_entry(BackupEntry(path=path, size_bytes=1), [b"x"])
    writer.finish()
    (tmp_path / "bad").write_bytes(file.getvalue())
    with pytest.raises(Untrusted):
        restore(tmp_path / "bad", tmp_path / "new")
    assert names(tmp_path) == {"hub", "b", "bad"}


@pytest.mark.rule("BACKUP-1")
@pytest.mark.parametrize("without", sorted(hub_restore.NEEDED))
@pytest.mark.parametrize("twice", (False, True))
def test_a_backup_that_lacks_a_file_or_has_one_twice_is_refused(
    data: Path, tmp_path: Path, without: str, twice: bool
) -> None:
    make_backup(data, tmp_path / "b")
    file = io.BytesIO()
    writer = ArchiveWriter(file, LOCK, KEY)
    with open_archive(tmp_path / "b", Opening(passphrase=SECRET)) as reader:
        writer.put_manifest(reader.manifest)
        for entry, chunks in reader.entries():
            content = b"".join(chunks)
            for _ in range(2 if twice else 0 if entry.path == without else 1):
                writer.put_entry(entry, [content])
    writer.finish()
    (tmp_path / "bad").write_bytes(file.getvalue())
    with pytest.raises(Untrusted):
        restore(tmp_path / "bad", tmp_path / "new")
    assert names(tmp_path) == {"hub", "b", "bad"}


def test_keys_of_two_hubs_do_not_make_one(data: Path, tmp_path: Path) -> None:
    make_hub(tmp_path / "other")
    (data / "keys" / "hub.pem").write_bytes((tmp_path / "other" / "keys" / "hub.pem").read_bytes())
    make_backup(data, tmp_path / "b")
    with pytest.raises(Untrusted) as caught:
        restore(tmp_path / "b", tmp_path / "new")
    assert caught.value.code == "backup.keys_mixed"
    assert names(tmp_path) == {"hub", "other", "b"}


def test_a_damaged_database_and_missing_keys_are_not_backed_up(data: Path, tmp_path: Path) -> None:
    key = (data / "tls" / "ca.key").read_bytes()
    (data / "tls" / "ca.key").unlink()
    with pytest.raises(Rejected):
        make_backup(data, tmp_path / "b")
    (data / "tls" / "ca.key").write_bytes(key)
    (data / "hub.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(Rejected):
        make_backup(data, tmp_path / "b")
    with pytest.raises(Rejected):
        make_backup(tmp_path / "nowhere", tmp_path / "b")
    assert names(tmp_path) == {"hub"}
    assert {"backup.db", "backup.json"}.isdisjoint(names(data))


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────


def kill_after(arguments: list[str], seconds: float) -> bool:
    """Run the program and kill it some time after it began; tell whether it was done before."""
    with subprocess.Popen([sys.executable, str(PROGRAM), *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        time.sleep(seconds)  # so that the kill falls anywhere in its work
        process.kill()
        return process.stdout.read() == b"done\n"


@pytest.mark.rule("BACKUP-3")
@pytest.mark.slow
def test_a_backup_that_is_killed_leaves_the_older_one_or_is_whole(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    make_hub(data, blobs=40, blob_bytes=400_000)
    make_backup(data, tmp_path / "b")
    before = (tmp_path / "b").stat().st_size
    cut = 0
    for step in range(12):
        cut += not kill_after(["backup", str(data), str(tmp_path / "b")], 0.008 * step)
        view = restore(tmp_path / "b", tmp_path / "dry", dry_run=True)
        assert view.manifest.blobs == 41
        assert (tmp_path / "b").stat().st_size == before
    assert cut > 0, "no kill came in time"
    back_up(job(data, tmp_path / "b", force=True), silent)
    assert names(tmp_path) == {"hub", "b"}
    assert "backup.db" not in names(data)


@pytest.mark.rule("BACKUP-3")
@pytest.mark.slow
def test_a_restore_that_is_killed_leaves_no_directory_or_a_whole_one(tmp_path: Path) -> None:
    data, new = tmp_path / "hub", tmp_path / "new"
    make_hub(data, blobs=40, blob_bytes=400_000)
    make_backup(data, tmp_path / "b")
    cut = 0
    for step in range(12):
        cut += not kill_after(["restore", str(new), str(tmp_path / "b")], 0.03 * step)
        if new.exists():
            assert console.examine(new).level != "fail"
            new.rename(tmp_path / f"whole-{step}")
    assert cut > 0, "no kill came in time"
    restore(tmp_path / "b", new)
    assert console.examine(new).level != "fail"
    assert not (tmp_path / "new.new").exists()


@pytest.mark.rule("BACKUP-3")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    make_hub(data, blobs=8, blob_bytes=500_000)
    make_backup(data, tmp_path / "b")
    with tiny_disk(tmp_path / "disk", size_bytes=2 << 20) as disk:
        for attempt in (
            lambda: make_backup(data, disk / "b"),
            lambda: restore(tmp_path / "b", disk / "new"),
        ):
            with pytest.raises(Unavailable) as caught:
                attempt()
            assert caught.value.code == "disk.full"
            assert names(disk) == set()
        fill(disk)
        with pytest.raises(Unavailable):
            make_backup(data, disk / "b")
        assert names(disk) == {"ballast"}
    assert "backup.db" not in names(data)


@pytest.mark.rule("SECRET-5")
def test_secrets_come_back_with_the_key_that_opens_them_and_outlive_another_key(tmp_path: Path) -> None:
    data, clock = tmp_path / "hub", SimulatedClock(NOW)
    make_hub(data)
    value = base64.b64encode(b"canary of the backup").decode()

    def opened(folder: Path) -> list[bytes]:
        with contextlib.closing(SqlHubStore.open(folder / "hub.db")) as store:
            keeper = SecretKeeper(store, KeyFile.find(folder, {}), clock)
            return [keeper.value(record) for record in store.secret_versions()]

    with contextlib.closing(SqlHubStore.open(data / "hub.db")) as store:
        record = SecretKeeper(store, KeyFile.find(data, {}), clock).prepare(
            "password", SecretRequest(value=value), "ann"
        )
        store.add_secret_version(record, Audit(at=NOW, who="ann", action="test", subject="test"))
    make_backup(data, tmp_path / "b")
    with hold(data / "hub.lock", conflict=Conflict("test", "test")), pytest.raises(Conflict) as caught:
        console.rekey_secrets(data)
    assert caught.value.code == "hub.running"
    assert console.rekey_secrets(data)[0] == 1
    assert opened(data) == [b"canary of the backup"]
    restore(tmp_path / "b", tmp_path / "new")
    assert opened(tmp_path / "new") == [b"canary of the backup"]
    assert console.examine(tmp_path / "new").level != "fail"
    assert (tmp_path / "new" / "keys" / "secrets.key").stat().st_mode & 0o777 == 0o600


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────


def skerry(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.secrets
def test_the_commands_make_look_into_and_restore_a_backup(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, secret = str(tmp_path / "b"), tmp_path / "passphrase"
    secret.write_text(SECRET + "\n")
    by = ("--passphrase-file", str(secret))
    code, out, err = skerry(capsys, "hub", "backup", file, "--data", str(data), *by)
    assert code == 0 and "1 site, 1 host" in out and SECRET not in out + err
    assert skerry(capsys, "hub", "backup", file, "--data", str(data), *by)[0] == 5
    assert skerry(capsys, "hub", "backup", file, "--data", str(data), *by, "--force")[0] == 0
    code, out, _ = skerry(capsys, "hub", "restore", file, "--dry-run", *by, "-o", "json")
    assert code == 0 and json.loads(out)["manifest"]["sites"] == {"zurich": 3}
    code, out, _ = skerry(capsys, "hub", "restore", file, "--dry-run", *by)
    assert code == 0 and "site zurich: generation 3" in out
    new = str(tmp_path / "new")
    code, _, err = skerry(capsys, "hub", "restore", file, "--data", new, *by)
    assert code == 0 and "LOOK THROUGH THE API TOKENS" in err and SECRET not in err
    assert skerry(capsys, "hub", "restore", file, "--data", new, *by)[0] == 5
    assert skerry(capsys, "hub", "restore", file, *by)[0] == 2
    assert skerry(capsys, "hub", "backup", file, "--data", new, *by, "--recipient", "x")[0] == 2


def test_a_key_of_another_machine_locks_and_opens(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, key = str(tmp_path / "b"), str(tmp_path / "key.pem")
    code, public, _ = skerry(capsys, "hub", "backup-key", key)
    assert code == 0 and Path(key).stat().st_mode & 0o777 == 0o600
    assert skerry(capsys, "hub", "backup-key", key)[0] == 5
    assert skerry(capsys, "hub", "backup", file, "--data", str(data), "--recipient", public.strip())[0] == 0
    assert skerry(capsys, "hub", "restore", file, "--dry-run", "--identity-file", key)[0] == 0
    new = str(tmp_path / "new")
    assert skerry(capsys, "hub", "restore", file, "--data", new, "--identity-file", key)[0] == 0


def test_a_passphrase_that_is_too_short_or_missing_is_refused(data: Path, tmp_path: Path) -> None:
    arguments = ["hub", "backup", str(tmp_path / "b"), "--data", str(data), "--passphrase-stdin"]
    from skerry.cli.invocation import Invocation
    from skerry.cli.main import cli

    done = CliRunner().invoke(cli, arguments, input="short\n", obj=Invocation())
    assert isinstance(done.exception, SkerryError)
    assert done.exception.code == "backup.short_passphrase"
    done = CliRunner().invoke(cli, arguments[:-1], input="", obj=Invocation())
    assert isinstance(done.exception, SkerryError)
    assert done.exception.code == "backup.no_passphrase"
    assert not (tmp_path / "b").exists()


def test_every_backup_leaves_a_note_of_its_time(data: Path, tmp_path: Path) -> None:
    make_backup(data, tmp_path / "b")
    assert msgspec.json.decode((data / "backup.json").read_bytes())["whole"] is True
