"""A program to be killed: it writes without end and prints what it was told is stored.

Usage: crashing.py hub|wipes|secrets|audit|agent|blobs PATH
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing
from skerry.ports.agent_store import QueuedReport
from skerry.ports.hub_store import AssignmentRecord
from skerry.ports.secrets import ExposureRecord
from tests.contract.hub_records import NOW, audit, populate, report, rollout, secret

SITES = ("berlin", "paris", "oslo")
HOSTS = ("cam-1", "cam-2", "cam-3", "cam-4")


def say(*words: object) -> None:
    """Print in one write, so that lines of threads do not mix and nothing waits in a buffer."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def run_hub(path: Path) -> None:
    store = SqlHubStore.open(path)
    populate(store, hosts=HOSTS)

    def send(host: str) -> None:
        sequence = 1
        while True:
            sequence = store.apply_reports([report(sequence + 1, host=host)])
            say(host, sequence)

    for host in HOSTS:
        threading.Thread(target=send, args=(host,)).start()


def run_wipes(path: Path) -> None:
    store = SqlHubStore.open(path)
    populate(store, hosts=())
    store.apply_documents(sites={}, rollouts=[rollout("r1")], audits=())
    applications = ("meter", "tap")
    assign = [
        AssignmentRecord(site="berlin", application=name, release=f"{name}@1", rollout="r1")
        for name in applications
    ]
    store.advance_rollout(rollout("r1"), assign=assign)

    def wipe(application: str) -> None:
        while True:
            say(application, store.wipe_volumes("berlin", application, audit("wipe")))

    for name in applications:
        threading.Thread(target=wipe, args=(name,)).start()


def run_secrets(path: Path) -> None:
    store = SqlHubStore.open(path)
    version = 0
    while True:
        version += 1
        record = secret("key", version)
        store.add_secret_version(record, audit("set"))
        say("set", version)
        exposure = ExposureRecord(
            host="cam-1", secret=record.id, site="berlin", name="key", version=version, sealed_at=NOW
        )
        store.note_exposures([exposure])
        say("sealed", version)
        store.revoke_secret("key", version, NOW, audit("revoke"))
        say("revoked", version)


def run_audit(path: Path) -> None:
    """Write changes with their entries, some of which are refused, and forget old entries meanwhile."""
    store = SqlHubStore.open(path)

    def change(name: str) -> None:
        number = 0
        while True:
            number += 1
            document = b"%d" % number
            store.apply_documents(sites={name: document}, rollouts=(), audits=[audit(f"put {name} {number}")])
            with contextlib.suppress(Missing):
                store.remove_site("nowhere", audit("never"))
            if number % 10 == 0:
                store.trim(keep_events=0, keep_audits=20)
            say(name, number)

    for name in SITES:
        threading.Thread(target=change, args=(name,)).start()


def run_agent(path: Path) -> None:
    store, _ = SqliteAgentStore.open(path)
    number = 0
    while True:
        number += 1
        store.save({"a": b"%d" % number, "b": b"%d" % number})
        store.put_report(QueuedReport(number, b"%d" % number))
        say(number)


def run_blobs(path: Path) -> None:
    blobs = DirectoryBlobs(path)
    number = 0
    while True:
        number += 1
        content = b"%d" % number * 50_000
        digest = digest_of(content)
        if number % 2:
            blobs.put(digest, content)
        else:
            blobs.append(digest, [content], offset=0, limit=len(content))
            blobs.finish(digest)
        say(digest)


if __name__ == "__main__":
    programs = {
        "hub": run_hub,
        "wipes": run_wipes,
        "secrets": run_secrets,
        "audit": run_audit,
        "agent": run_agent,
        "blobs": run_blobs,
    }
    programs[sys.argv[1]](Path(sys.argv[2]))
