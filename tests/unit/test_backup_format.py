"""A sealed backup opens as it was written, and not at all otherwise."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.adapters.backup_archive import ArchiveReader, ArchiveWriter, new_archive
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Conflict, Denied, Rejected, SkerryError, Unavailable, Untrusted
from skerry.spec.backup import BackupEntry, BackupManifest
from skerry.trust import backup
from skerry.trust.backup import CHUNK_BYTES, MAGIC, TAG_BYTES, ChunkCipher, Opening
from skerry.trust.keys import new_sealing_key

pytestmark = [pytest.mark.trust]

SECRET = "correct horse battery"
SALT = bytes(range(16))
LOCK = backup.passphrase_lock(SALT, log_n=10)
KEY = backup.passphrase_key(LOCK, SECRET)
MANIFEST = BackupManifest(
    made_at=datetime(2026, 3, 1, tzinfo=UTC),
    hub="0123",
    version="1",
    sites={"zurich": 7},
    hosts=1,
    releases=("a@1",),
    blobs=0,
    size_bytes=3,
    whole=True,
)


def write(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    writer = ArchiveWriter(file, LOCK, KEY)
    writer.put_manifest(MANIFEST)
    for path, content in files.items():
        writer.put_entry(BackupEntry(path=path, size_bytes=len(content)), [content])
    writer.finish()
    assert writer.size_bytes == len(file.getvalue())
    return file.getvalue()


def read(content: bytes, opening: Opening | None = None) -> dict[str, bytes]:
    reader = ArchiveReader(io.BytesIO(content), opening or Opening(passphrase=SECRET))
    assert reader.manifest == MANIFEST
    return {entry.path: b"".join(chunks) for entry, chunks in reader.entries()}


def chunks_of(content: bytes) -> tuple[bytes, list[bytes]]:
    size = backup.head_length(content[: len(MAGIC) + 2])
    step = CHUNK_BYTES + TAG_BYTES
    body = content[size:]
    return content[:size], [body[first : first + step] for first in range(0, len(body), step)]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text("abc/", min_size=1, max_size=8), st.integers(0, 3 * CHUNK_BYTES), max_size=4))
def test_what_was_written_is_read(sizes: dict[str, int]) -> None:
    files = {path: path[0].encode() * size for path, size in sizes.items()}
    assert read(write(files)) == files


@pytest.mark.parametrize("more", range(-3, 4))
def test_a_content_that_fills_its_last_chunk_exactly_is_read(more: int) -> None:
    empty = (
        len(encode_canonical(MANIFEST)) + 4 + len(encode_canonical(BackupEntry(path="f", size_bytes=65000)))
    )
    size = CHUNK_BYTES - empty - 8 + more
    assert read(write({"f": b"x" * size})) == {"f": b"x" * size}


@pytest.mark.rule("BACKUP-1")
def test_a_flip_of_any_bit_of_any_byte_is_refused() -> None:
    content = write({"keys/hub.pem": b"key"})
    for position in range(len(content)):
        for bit in (0, 3, 7):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            with pytest.raises((Untrusted, Denied, Rejected)):
                read(bytes(changed))


@pytest.mark.rule("BACKUP-1")
def test_what_was_cut_off_anywhere_or_has_more_is_refused() -> None:
    content = write({"hub.db": b"0123456789"})
    for length in range(len(content)):
        with pytest.raises((Untrusted, Denied, Rejected)):
            read(content[:length])
    with pytest.raises((Untrusted, Denied)):
        read(content + b"\0")


@pytest.mark.rule("BACKUP-1")
def test_chunks_that_are_dropped_swapped_doubled_or_from_another_backup_are_refused() -> None:
    head, chunks = chunks_of(write({"hub.db": b"x" * (4 * CHUNK_BYTES)}))
    assert len(chunks) >= 5
    other = chunks_of(write({"hub.db": b"y" * (4 * CHUNK_BYTES)}))[1]
    cases = [
        chunks[:-1],
        chunks[:2],
        [chunks[1], chunks[0], *chunks[2:]],
        [*chunks[:2], chunks[1], *chunks[2:]],
        [*chunks[:2], *chunks[3:]],
        [*chunks, chunks[-1]],
    ]
    for case in cases:
        with pytest.raises((Untrusted, Denied)):
            read(head + b"".join(case))
    # The same passphrase and another salt: chunks do not fit from one file into another.
    file = io.BytesIO()
    lock = backup.passphrase_lock(SALT[::-1], log_n=10)
    writer = ArchiveWriter(file, lock, backup.passphrase_key(lock, SECRET))
    writer.put_manifest(MANIFEST)
    writer.put_entry(BackupEntry(path="hub.db", size_bytes=4 * CHUNK_BYTES), [b"x" * (4 * CHUNK_BYTES)])
    writer.finish()
    foreign = chunks_of(file.getvalue())[1]
    with pytest.raises((Untrusted, Denied)):
        read(head + b"".join([*chunks[:2], foreign[2], *chunks[3:]]))
    assert other != chunks


@pytest.mark.rule("BACKUP-1")
def test_a_chunk_opens_as_the_last_one_only_if_it_is_and_only_under_its_own_head() -> None:
    head = backup.encode_head(LOCK)
    for last in (False, True):
        sealed = ChunkCipher(KEY, head).seal(b"chunk", last=last)
        assert ChunkCipher(KEY, head).open(sealed, last=last) == b"chunk"
        with pytest.raises(Denied):
            ChunkCipher(KEY, head).open(sealed, last=not last)
        with pytest.raises(Denied):
            ChunkCipher(KEY, head + b" ").open(sealed, last=last)
        later = ChunkCipher(KEY, head)
        assert later.open(later_of(head), last=False) == b"first"
        with pytest.raises(Untrusted):
            later.open(sealed, last=last)


def later_of(head: bytes) -> bytes:
    return ChunkCipher(KEY, head).seal(b"first", last=False)


@pytest.mark.rule("BACKUP-1")
@pytest.mark.parametrize("more", (b"", b"\0", b"x" * (CHUNK_BYTES + 5)))
def test_what_follows_the_end_mark_is_refused(more: bytes) -> None:
    file = io.BytesIO()
    writer = ArchiveWriter(file, LOCK, KEY)
    writer.put_manifest(MANIFEST)
    writer._write(bytes(4) + more + bytes(4))
    writer._seal(bytes(writer._waiting), last=True)
    with pytest.raises(Untrusted):
        read(file.getvalue())


@pytest.mark.rule("BACKUP-1")
@pytest.mark.parametrize(
    "lock",
    (
        {"log_n": 40},
        {"log_n": 19},
        {"log_n": 1},
        {"r": 1 << 20},
        {"p": 1 << 20},
        {"log_n": -1},
        {"r": 0},
        {"more": 1},
    ),
)
def test_a_head_that_asks_for_more_than_any_backup_is_refused_before_work_is_done(
    lock: dict[str, int],
) -> None:
    body = msgspec.json.encode({**msgspec.to_builtins(LOCK), **lock})
    head = MAGIC + len(body).to_bytes(2, "big") + body
    with pytest.raises(Untrusted) as caught:
        read(head + bytes(1000))
    assert caught.value.code == "backup.altered"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    for start in (b"", MAGIC, backup.encode_head(LOCK)):
        with pytest.raises(SkerryError):
            read(start + content)


def test_a_wrong_passphrase_is_denied_and_nothing_of_it_is_told() -> None:
    with pytest.raises(Denied) as caught:
        read(write({}), Opening(passphrase="wrong donkey battery"))
    assert caught.value.code == "backup.locked"
    assert "donkey" not in str(caught.value)
    with pytest.raises(Rejected) as needed:
        read(write({}), Opening(identity_pem=b"pem"))
    assert needed.value.code == "backup.needs_passphrase"


def test_a_newer_format_and_another_file_are_told_apart() -> None:
    with pytest.raises(Rejected) as newer:
        read(b"skerry-backup-2\n" + bytes(50))
    assert newer.value.code == "backup.newer"
    with pytest.raises(Rejected) as foreign:
        read(b"SQLite format 3\0" + bytes(50))
    assert foreign.value.code == "backup.foreign"


def test_a_backup_for_a_recipient_opens_with_its_private_half_alone() -> None:
    pem, public = new_sealing_key()
    lock = backup.recipient_lock(public, KEY)
    file = io.BytesIO()
    writer = ArchiveWriter(file, lock, KEY)
    writer.put_manifest(MANIFEST)
    writer.finish()
    assert read(file.getvalue(), Opening(identity_pem=pem)) == {}
    for opening, kind in (
        (Opening(identity_pem=new_sealing_key()[0]), Denied),
        (Opening(identity_pem=b"no pem"), Rejected),
        (Opening(passphrase=SECRET), Rejected),
    ):
        with pytest.raises(kind):
            read(file.getvalue(), opening)
    with pytest.raises(Rejected):
        backup.recipient_lock("bm8ga2V5", KEY)


def test_a_short_passphrase_locks_nothing() -> None:
    with pytest.raises(Rejected):
        backup.check_passphrase("short")


def test_parts_longer_than_any_are_refused_before_they_are_read() -> None:
    file = io.BytesIO()
    writer = ArchiveWriter(file, LOCK, KEY)
    writer._write((1 << 31).to_bytes(4, "big"))
    writer.finish()
    with pytest.raises(Untrusted):
        read(file.getvalue())


def test_a_file_that_changes_while_it_is_read_ends_the_backup(tmp_path: Path) -> None:
    def back_up(chunks: list[bytes]) -> None:
        with new_archive(tmp_path / "b", LOCK, KEY, force=False) as archive:
            archive.put_manifest(MANIFEST)
            archive.put_entry(BackupEntry(path="hub.db", size_bytes=10), chunks)

    for chunks in ([b"x" * 5], [b"x" * 11]):
        with pytest.raises(Unavailable):
            back_up(chunks)
        assert list(tmp_path.iterdir()) == []


def test_a_file_is_overwritten_only_when_that_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.write_bytes(b"mine")
    with pytest.raises(Conflict), new_archive(target, LOCK, KEY, force=False):
        pass
    assert target.read_bytes() == b"mine"
    with new_archive(target, LOCK, KEY, force=True) as archive:
        archive.put_manifest(MANIFEST)
    assert read(target.read_bytes()) == {}
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]
