"""A command that believes it runs on a terminal, and what that terminal was sent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from typing import Self

from skerry.testing.fleet import COMMAND_S, SKERRY, Fleet

_ROWS, _COLUMNS = 40, 140
_sequence_re = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class OnTerminal:
    """A `skerry` command on a terminal of its own; use it in a `with`."""

    def __init__(self, fleet: Fleet, *arguments: str) -> None:
        self._mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            [*SKERRY, *arguments],
            stdin=its,
            stdout=its,
            stderr=its,
            env={**fleet.env, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(its)
        self._sent = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._mine)

    @property
    def sent(self) -> str:
        """All that was sent to the terminal so far, as it was sent."""
        return self._sent.decode(errors="replace")

    @property
    def text(self) -> str:
        """The same without what steers the terminal."""
        return _sequence_re.sub("", self.sent)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for the command to end; return its exit code."""
        code = self._process.wait(COMMAND_S)
        self._reader.join()
        return code

    def _read(self) -> None:
        # Reading fails once the command, and with it the terminal's other end, is gone.
        with contextlib.suppress(OSError):
            while piece := os.read(self._mine, 1 << 16):
                self._sent += piece
