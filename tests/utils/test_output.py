"""Printing never stops the work: output that is closed, full, not read, or cannot be encoded."""

import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT

# Prints much, also as libraries do in C, and writes one file after it.
WORK = """
import os, sys
from pathlib import Path
from sam_lungs.utils.cli import run_script

def main():
    with open("result", "w") as file:
        for number in range(20_000):
            print("line", number)
            if number % 5000 == 0:
                print("warning", number, file=sys.stderr)
        for descriptor in (1, 2):
            try:
                os.write(descriptor, b"from a library\\n")
            except OSError:
                pass
        file.write("complete")
    return int(sys.argv[1])

run_script(main)
"""


def work(tmp_path, redirection: str, status: int = 0) -> subprocess.CompletedProcess:
    """Run WORK in a shell; the status is that of Python, not of the reader."""
    command = f'"$0" -c "$1" {status} {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, WORK],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "result").read_text() == "complete"
    return done


@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full", "| true", "| head -1", "2>&1 | head -1"],
)
@pytest.mark.parametrize("status", [0, 1])
def test_the_status_is_that_of_the_work(tmp_path, redirection, status):
    done = work(tmp_path, redirection, status)
    assert done.returncode == status
    assert "rror" not in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_full_output_is_one_line_and_status_1(tmp_path):
    done = work(tmp_path, ">/dev/full")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "standard output: cannot be written (No space left on device)" in line
    assert "Traceback" not in done.stderr
    assert work(tmp_path, ">/dev/full 2>/dev/full").returncode == 1


def test_what_is_read_is_what_was_printed(tmp_path):
    lines = work(tmp_path, "").stdout.splitlines()
    assert lines[-1] == "line 19999"
    assert [line for line in lines if line.startswith("line")] == [
        f"line {number}" for number in range(20_000)
    ]


def run_main(body: str, **environment: str) -> subprocess.CompletedProcess:
    script = f"from sam_lungs.utils.cli import run_script\nrun_script(lambda: {body})"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True
    )


def test_a_full_pipe_that_does_not_block_is_waited_for(tmp_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [sys.executable, "-c", WORK, "0"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(writer)
        time.sleep(0.5)  # until the pipe is full
        with open(reader) as output:
            lines = output.read().splitlines()
        assert process.wait() == 0
    assert lines[-1] == "line 19999"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", r"\xe9 \udcff"), ("utf-8", r"é \udcff"), ("latin-1:strict", r"é \udcff")],
)
def test_what_cannot_be_encoded_is_written_with_backslashes(encoding, shown):
    done = run_main("print('\\xe9 \\udcff')", PYTHONIOENCODING=encoding)
    assert done.stderr == b""
    assert done.stdout.decode(encoding.partition(":")[0]) == f"{shown}\n"


def test_a_file_name_that_is_not_utf_8_is_one_line_and_status_1():
    done = run_main("'<td>a/b\\udcff.nii: 1</td>'.encode()")
    assert done.returncode == 1
    assert done.stderr == b"error: a/b\\udcff.nii: its name is not UTF-8; rename it\n"


@pytest.mark.parametrize("redirection", [">&-", "| true", ">/dev/full"])
def test_scripts_of_several_commands_go_on_too(redirection):
    script = "import time; from commands import say; time.sleep(0.1); say('a', 'b'); say('c')"
    command = f'"$0" -c "$1" {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, script],
        cwd=ROOT,
        env={"PYTHONPATH": "scripts"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
