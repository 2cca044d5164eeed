"""What a process imports for good costs the garbage collector nothing, and all else is collected as before."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from skerry.cli.lasting import lasting

class Ring:
    def __init__(self):
        self.itself = self

with lasting():
    assert not gc.isenabled()
    kept = [Ring()]
assert gc.isenabled()
assert not any(found is kept for found in gc.get_objects()), "the collector still goes through it"

later = weakref.ref(Ring())
gc.collect()
assert later() is None, "what comes afterwards is collected"

gc.disable()
with lasting():
    pass
assert not gc.isenabled(), "nobody who switched it off finds it on"
print("passed")
"""


def test_what_is_made_within_is_passed_over_and_what_comes_later_is_collected() -> None:
    # In a process of its own: what is frozen stays so.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("passed\n", "")
