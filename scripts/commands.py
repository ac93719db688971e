"""Run commands one after another, for the scripts in this folder that need several."""

from __future__ import annotations  # also works in Python 3.9

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TextIO

_received: list[int] = []  # signals


def say(*lines: object) -> None:
    """Print lines; if standard output cannot be written, drop them and the following ones."""
    try:
        print(*lines, sep="\n", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run(command: Sequence[object], log: TextIO | None = None) -> None:
    """Run a command; exit with its status if it fails.

    SIGINT and SIGTERM are forwarded to the command. When the command has ended, this process exits
    with 130 or 143.

    log: file for standard output and standard error; `None` does not redirect them.
    """
    process = None

    def stop(number: int, _frame: object) -> None:
        _received.append(number)
        if process:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
    if _received:  # while the process was starting
        process.send_signal(_received[0])
    status = process.wait()
    if _received:
        sys.exit(128 + _received[0])
    if status:
        sys.exit(status if status > 0 else 128 - status)
