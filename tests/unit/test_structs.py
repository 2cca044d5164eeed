"""Structs are worked out before threads read them: else the process may end in the midst of it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
import msgspec
import skerry.hub.backend, skerry.spec.documents
from skerry.kit.structs import settle_structs
from skerry.spec.release import Release
from skerry.spec.report import Report
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site
assert settle_structs() > 40
sys.setswitchinterval(1e-6)
barrier, kinds = threading.Barrier(6), (Release, Report, Rollout, Site)
spec = b'{"version": "1", "components": [{"name": "c", "command": ["x"]}]}'
name = b'"apiVersion": "skerry/v1", "kind": "Application", "metadata": {"name": "a"}'
document = b'{"type": "release", "application": {' + name + b', "spec": ' + spec + b"}}"
def read(number):
    barrier.wait()
    for kind in kinds if number % 2 else reversed(kinds):
        try:
            msgspec.json.decode(document, type=kind)
        except msgspec.ValidationError:
            pass
threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("read")
"""
KNOWN = """
import skerry.hub.wiring.serving, skerry.agent.wiring.running, msgspec
from skerry.kit import structs
def descendants(kind):
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)
for kind in set(descendants(msgspec.Struct)):
    if kind.__module__.startswith("skerry.spec"):
        msgspec.json.Decoder(kind)
"""


def test_threads_that_read_a_type_for_the_first_time_at_once_do_not_end_the_process() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"read\n"), done.stderr.decode()


def test_every_struct_that_documents_are_read_as_can_be_settled() -> None:
    subprocess.run([sys.executable, "-c", KNOWN], check=True, timeout=60)
