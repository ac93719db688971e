"""Command lines: parsing, one-line errors, exit statuses."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

import sam_lungs
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError, report


def parse_even(text: str) -> int:
    if int(text) % 2:
        raise InputError("give an even number")
    return int(text)


@dataclass(frozen=True)
class Example:
    image_path: list[Path] = option("images", group="input", short="-i")
    window: str = option("the window", "auto", group="input")
    box: bool = option("give the box", True, group="prompts")
    dry_run: bool = option("check only", False, group="run", short="-n")
    steps: int = option("even", 0, group="run", parse=parse_even)
    kind: str = option("which", "one", group="run", choices=("one", "two"))


def parsed(monkeypatch, *arguments: str) -> Example:
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    return parse_options(Example, "An example.", "python script.py -i a.npy")


def test_defaults_short_forms_switches_and_several_values(monkeypatch):
    assert parsed(monkeypatch, "-i", "a", "b") == Example([Path("a"), Path("b")])
    assert parsed(monkeypatch, "-i", "a", "-n", "--no_box") == Example(
        [Path("a")], box=False, dry_run=True
    )
    assert parsed(monkeypatch, "-i", "a", "--no_box", "--box").box is True
    assert parsed(monkeypatch, "-i", "a", "--steps", "4", "--kind", "two") == Example(
        [Path("a")], steps=4, kind="two"
    )


def test_hyphens_and_underscores_are_equivalent(monkeypatch):
    expected = parsed(monkeypatch, "--image_path", "a-b", "--dry_run", "--no_box")
    assert parsed(monkeypatch, "--image-path=a-b", "--dry-run", "--no-box") == expected
    assert expected.image_path == [Path("a-b")]


def test_a_value_may_start_with_a_minus_sign(monkeypatch):
    assert parsed(monkeypatch, "-i", "a", "--window", "-650,1500").window == "-650,1500"
    assert parsed(monkeypatch, "-i", "a", "--steps", "-4").steps == -4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "a", "--windw", "lung"], "unknown option --windw; did you mean --window?"),
        (["-i", "a", "--no-bx"], "unknown option --no_bx; did you mean --no_box?"),
        (["-i", "a", "--xyzzy"], "unknown option --xyzzy; --help lists the options"),
        (["-i", "a", "--wind", "lung"], "unknown option --wind; did you mean --window?"),
        (["-i", "a", "--steps", "3"], "--steps 3: give an even number"),
        (["-i", "a", "--kind", "three"], "invalid choice: 'three'"),
        (["-i"], "expected at least one argument; see --help"),
        ([], "the following arguments are required: -i/--image_path; see --help"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, arguments, message):
    with pytest.raises(InputError) as error:
        parsed(monkeypatch, *arguments)
    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


def test_help_shows_groups_defaults_and_the_example(monkeypatch, capsys):
    with pytest.raises(SystemExit) as exited:
        parsed(monkeypatch, "--help")
    assert exited.value.code == 0
    text = capsys.readouterr().out
    for words in ("input:", "prompts:", "run:", "the window (default: auto)", "even (default: 0)"):
        assert words in text
    assert text.endswith("example:\n  python script.py -i a.npy\n")
    assert "default: None" not in text
    assert "default: False" not in text


def test_version(monkeypatch, capsys):
    with pytest.raises(SystemExit) as exited:
        parsed(monkeypatch, "--version")
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"{sam_lungs.__version__}\n"


def test_the_exit_status_is_the_value_of_main():
    for returned, status in ((None, None), (0, 0), (1, 1)):
        with pytest.raises(SystemExit) as exited:
            run_script(lambda returned=returned: returned)
        assert exited.value.code == status


def test_an_input_error_is_one_line_and_status_1(capsys):
    def main():
        raise InputError("file.nii: is broken; make it again")

    with pytest.raises(SystemExit) as exited:
        run_script(main)
    assert exited.value.code == 1
    assert capsys.readouterr().err == "error: file.nii: is broken; make it again\n"


def test_a_line_break_in_a_file_name_stays_in_the_line(capsys):
    report(InputError("a\nb.nii: no such file"))
    assert capsys.readouterr().err == "error: a\\nb.nii: no such file\n"


SLEEP = """
import signal, sys, threading, time
from sam_lungs.utils.cli import run_script
signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
def main():
    # A running thread must not delay the exit.
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("ready", flush=True)
    time.sleep(60)
run_script(main)
"""


@pytest.mark.parametrize(
    ("number", "handler", "status"),
    [
        (signal.SIGINT, "default_int_handler", 130),
        (signal.SIGTERM, "default_int_handler", 143),
        (signal.SIGTERM, "SIG_IGN", 143),
    ],
)
def test_a_signal_ends_the_process_within_a_second_with_a_message(number, handler, status):
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP, handler],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        _, error = process.communicate(timeout=1)
    assert process.returncode == status
    assert error == (
        "\ninterrupted: finished work is kept; to resume, run the same command again\n"
    )


def test_a_signal_that_was_ignored_stays_ignored():
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP, "SIG_IGN"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 4 bytes."),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=repr,
)  # fmt: skip
def test_too_little_memory_is_one_line_and_status_1(capsys, error):
    def main():
        raise error

    with pytest.raises(SystemExit) as exited:
        run_script(main)
    assert exited.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith("error: too little memory")
    assert line.count("\n") == 1


def test_a_mistake_in_the_code_keeps_its_stack_trace():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 // 0)
    with pytest.raises(UnicodeEncodeError):
        run_script(lambda: "\xe9".encode("ascii"))
