"""Run commands one after another, for the scripts in this folder that need several."""

from __future__ import annotations  # for an older Python that runs compare_pythons.py

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TextIO

_received: list[int] = []  # signals


def run(command: Sequence[object], log: TextIO | None = None) -> None:
    """Run a command; exit with its status if it fails.

    SIGINT and SIGTERM are passed on to the command. When it has ended, this process exits with 130
    or 143.
    log: receives standard output and standard error; `None` leaves them alone.
    """
    process = None

    def stop(number: int, _frame: object) -> None:
        _received.append(number)
        if process:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
    if _received:  # before the process was known
        process.send_signal(_received[0])
    status = process.wait()
    if _received:
        sys.exit(128 + _received[0])
    if status:
        sys.exit(status if status > 0 else 128 - status)
