"""Run scripts in separate processes, send signals to them, and inject faults at their writes.

The processes are forked from a server process that has already imported the slow modules, so that
each script starts fast.
"""

import errno
import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

from hypothesis import settings

from sam_lungs.utils import waiting

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ("kill", "half", "full_disk")
# Keys of run.json that depend on the time.
TIMES = ("started", "seconds", "seconds_per_slice")

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(
    [
        *("sam_lungs.study.dry_run", "sam_lungs.summary.report", "sam_lungs.synthetic.training"),
        "warm",
        *("monai.metrics", "scipy.stats", "sam_lungs.segmenters.hf"),
        *(f"transformers.models.{name}.modeling_{name}" for name in ("sam", "sam2")),
    ]
)


def is_nightly() -> bool:
    """Whether the nightly profile is chosen; known only after pytest has parsed its options."""
    return settings().max_examples > 1000


def fault_step() -> int:
    """The distance between the writes at which faults are injected."""
    return 1 if is_nightly() else 3


class Child:
    """A script that runs in a folder.

    fault: one of `FAULTS`, and the number of the write at which it happens; 0 for none.
    """

    def __init__(
        self,
        folder: Path,
        script: str | Path,
        *arguments: object,
        fault: tuple[str, int] | None = None,
    ) -> None:
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        forkserver.ensure_running()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        # Not in the folder, because tests check its content.
        logs = Path(tempfile.mkdtemp(prefix=f"{folder.name}_logs_", dir=folder.parent))
        self._logs = [logs / name for name in ("stdout", "stderr")]
        command = [str(ROOT / script), *map(str, arguments)]
        self._process = _forking.Process(target=_run, args=(folder, self._logs, command, fault))
        self._process.start()
        self.pid = self._process.pid

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def wait(self) -> int:
        """Wait for the end; return the exit status, or minus the number of the signal."""
        self._process.join(120)
        assert self.has_ended(), "timeout"
        return self._process.exitcode

    def output_lines(self) -> list[str]:
        """The lines of standard output, followed by those of standard error."""
        return "".join(self.streams()).splitlines()

    def streams(self) -> list[str]:
        """The texts of standard output and of standard error."""
        return [log.read_text() for log in self._logs]


def finish(folder: Path, script: str, *arguments: object) -> list[str]:
    """Run a script that must succeed; return its output lines."""
    child = Child(folder, script, *arguments)
    assert child.wait() == 0, child.output_lines()
    return child.output_lines()


def inject_faults(
    folder: Path, output: str, fault: str, script: str, *arguments: object, ignored: str = ""
) -> int:
    """Inject a fault at the writes of a script, one per run, and check that a rerun resumes.

    output: folder in `folder` that the script writes to. After the rerun its files must be the same
        as after a run without a fault, except for the file `ignored`.

    Returns the number of faults.
    """
    child = Child(folder, script, *arguments, fault=(fault, 0))
    assert child.wait() == 0, child.output_lines()
    writes = int(child.streams()[0].splitlines()[-1])
    expected = contents(folder / output, ignored)
    places = range(1 + FAULTS.index(fault) % fault_step(), writes + 1, fault_step())
    for place in places:
        shutil.rmtree(folder / output)
        child = Child(folder, script, *arguments, fault=(fault, place))
        status, errors = child.wait(), [line for line in child.output_lines() if "rror: " in line]
        if fault == "full_disk":
            # No error if the write was not necessary.
            assert (status, len(errors)) in ((1, 1), (0, 0)), child.output_lines()
        else:
            assert (status, len(errors)) == (-signal.SIGKILL, 0), child.output_lines()
        finish(folder, script, *arguments)
        assert contents(folder / output, ignored) == expected, (
            f"{fault} at write {place} of {writes}"
        )
    return len(places)


def contents(folder: Path, ignored: str = "") -> dict[str, object]:
    """Return the files of a folder by path, without hidden ones and the times in `run.json`.

    ignored: name of a file to leave out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name != ignored and not re.search(r"(^|/)\.", name):
            content = path.read_bytes()
            if path.name == "run.json":
                run = json.loads(content)
                content = {key: run[key] for key in run if key not in TIMES}
            found[name] = content
    return found


def damaged(content: bytes, lengths: int, flips: int) -> Iterator[bytes]:
    """Yield the bytes of a file cut at random lengths, and with single random bits flipped."""
    rng = random.Random(0)
    for length in (0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(lengths))):
        yield content[:length]
    for _ in range(flips):
        place = rng.randrange(len(content))
        flipped = content[place] ^ 1 << rng.randrange(8)
        yield content[:place] + bytes([flipped]) + content[place + 1 :]


def wait_for(path: Path, child: Child) -> None:
    """Wait until a script has created a file."""
    while not path.exists():
        assert not child.has_ended(), child.output_lines()
        time.sleep(0.002)


def _run(
    folder: Path, logs: list[Path], arguments: list[str], fault: tuple[str, int] | None
) -> None:
    for stream, log in enumerate(logs, 1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(folder)
    # No network: this proxy refuses every connection.
    os.environ["https_proxy"] = "http://127.0.0.1:9"
    # A shell that starts the tests in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("error")
    # A signal may arrive between the opening and the closing of a file.
    warnings.simplefilter("ignore", ResourceWarning)
    count_writes = _inject(*fault) if fault else None
    sys.argv = arguments
    waiting.SECONDS = 600  # tests check standard error, also on a slow machine
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        if fault:
            print(count_writes())


def _inject(fault: str, at: int) -> Callable[[], int]:
    """Count the writes of this process from now on, and inject a fault at write number `at`.

    Calls of `os` that change a file are writes. Data that other code writes counts when it is
    synced. Returns a function that returns the number of writes.
    """
    counted, truncate = 0, os.ftruncate

    def counting(name: str, write: Callable) -> Callable:
        def counted_write(*arguments, **options):
            nonlocal counted
            # A sync of a folder cannot lose data.
            if name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
                return write(*arguments, **options)
            counted += 1
            if counted == at:
                if fault == "full_disk":
                    if name in ("unlink", "rmdir"):
                        return write(*arguments, **options)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if fault == "half" and name == "write":
                    descriptor, data = arguments
                    write(descriptor, data[: len(data) // 2])
                if fault == "half" and name == "fsync":
                    # A power failure may lose part of the data that is not synced.
                    size = os.fstat(arguments[0]).st_size
                    truncate(arguments[0], size - min(size, 40))
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **options)

        return counted_write

    for name in ("write", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counting(name, getattr(os, name)))
    return lambda: counted
