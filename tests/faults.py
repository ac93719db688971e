"""Scripts run in processes of their own, which can be stopped, killed, or broken at a write.

The processes are forked from one that has imported all they need, and computed nothing: what takes
a script seconds to import, they need not wait for.
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

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ("kill", "half", "full_disk")
# Only these tell when and how long a run was.
TIMES = ("started", "seconds", "seconds_per_slice")

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(
    [
        *("sam_lungs.study.dry_run", "sam_lungs.summary.report", "sam_lungs.synthetic.training"),
        *("monai.metrics", "scipy.stats"),
    ]
)


def is_nightly() -> bool:
    """Whether the tests run at their full length; known only once all options are read."""
    return settings().max_examples > 1000


def every() -> int:
    """Of how many writes a fault happens at one, others for each kind of fault."""
    return 1 if is_nightly() else 3


class Child:
    """A script that runs in a folder.

    fault: of `FAULTS`, and at which of its writes it happens.
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
        # Beside the folder, whose content tests look at.
        said = Path(tempfile.mkdtemp(prefix=f"{folder.name}_said_", dir=folder.parent))
        self._logs = [said / name for name in ("stdout", "stderr")]
        command = [str(ROOT / script), *map(str, arguments)]
        self._process = _forking.Process(target=_run, args=(folder, self._logs, command, fault))
        self._process.start()
        self.pid = self._process.pid

    def send(self, number: int) -> None:
        """Send it a signal, if it is not over."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def is_over(self) -> bool:
        return not self._process.is_alive()

    def wait(self) -> int:
        """Wait for the end and return the exit status, that of a signal negative."""
        self._process.join(120)
        assert self.is_over(), "it hangs"
        return self._process.exitcode

    def said(self) -> list[str]:
        """The lines it has written to standard output, and then those to standard error."""
        return "".join(self.streams()).splitlines()

    def streams(self) -> list[str]:
        """What it has written to standard output and to standard error."""
        return [log.read_text() for log in self._logs]


def finish(folder: Path, script: str, *arguments: object) -> list[str]:
    """Run a script that must succeed, and return what it said."""
    child = Child(folder, script, *arguments)
    assert child.wait() == 0, child.said()
    return child.said()


def break_everywhere(
    folder: Path, output: str, fault: str, script: str, *arguments: object, but: str = ""
) -> int:
    """Let a fault happen at each of a script's writes, and see that the same command goes on.

    output: the folder in `folder` that it writes to, in the end the same as undisturbed.
    but: a file there which need not be the same.
    Returns how many faults there were.
    """
    child = Child(folder, script, *arguments, fault=(fault, 0))
    assert child.wait() == 0, child.said()
    writes = int(child.streams()[0].splitlines()[-1])
    undisturbed = contents(folder / output, but)
    places = range(1 + FAULTS.index(fault) % every(), writes + 1, every())
    for place in places:
        shutil.rmtree(folder / output)
        child = Child(folder, script, *arguments, fault=(fault, place))
        status, errors = child.wait(), [line for line in child.said() if "rror: " in line]
        if fault == "full_disk":
            # Without an error where what could not be written was not needed.
            assert (status, len(errors)) in ((1, 1), (0, 0)), child.said()
        else:
            assert (status, len(errors)) == (-signal.SIGKILL, 0), child.said()
        finish(folder, script, *arguments)
        assert contents(folder / output, but) == undisturbed, (
            f"{fault} at write {place} of {writes}"
        )
    return len(places)


def contents(folder: Path, but: str = "") -> dict[str, object]:
    """Return the files of a folder by path, without hidden ones and the times in `run.json`.

    but: the name of a file to leave out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name != but and not re.search(r"(^|/)\.", name):
            content = path.read_bytes()
            if path.name == "run.json":
                run = json.loads(content)
                content = {key: run[key] for key in run if key not in TIMES}
            found[name] = content
    return found


def damaged(content: bytes, lengths: int, flips: int) -> Iterator[bytes]:
    """Yield a file's bytes cut to so many random lengths, and with one of so many bits flipped."""
    rng = random.Random(0)
    for length in (0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(lengths))):
        yield content[:length]
    for _ in range(flips):
        place = rng.randrange(len(content))
        flipped = content[place] ^ 1 << rng.randrange(8)
        yield content[:place] + bytes([flipped]) + content[place + 1 :]


def wait_for(path: Path, child: Child) -> None:
    """Wait until a script has made a file."""
    while not path.exists():
        assert not child.is_over(), child.said()
        time.sleep(0.002)


def _run(
    folder: Path, logs: list[Path], arguments: list[str], fault: tuple[str, int] | None
) -> None:
    for stream, log in enumerate(logs, 1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(folder)
    # Nothing leaves the machine: the proxy it would have to go through refuses every connection.
    os.environ["https_proxy"] = "http://127.0.0.1:9"
    # Which is ignored where the tests are started in a shell's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("error")
    # A signal may come between the opening of a file and whatever would close it.
    warnings.simplefilter("ignore", ResourceWarning)
    writes = _break(*fault) if fault else None
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        if fault:
            print(writes())


def _break(fault: str, at: int) -> Callable[[], int]:
    """Count this process's writes from now on, and let a fault happen at that number of them.

    What changes a file by way of `os` is a write; what other code writes is one when it is synced.
    Returns what tells how many there were.
    """
    counted, truncate = 0, os.ftruncate

    def counting(name: str, write: Callable) -> Callable:
        def counted_write(*arguments, **options):
            nonlocal counted
            # Folders are synced too, which can lose nothing.
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
                    # Of what is not synced a power loss may take a part.
                    size = os.fstat(arguments[0]).st_size
                    truncate(arguments[0], size - min(size, 40))
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **options)

        return counted_write

    for name in ("write", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counting(name, getattr(os, name)))
    return lambda: counted
