import os
import signal
import time

import pytest

from sam_lungs.utils.errors import InputError, run_script
from sam_lungs.utils.signals import SIGNALS


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_exit_status_is_what_main_returns():
    for returned, status in ((None, None), (0, 0), (1, 1)):
        with pytest.raises(SystemExit) as left:
            run_script(lambda returned=returned: returned)
        assert left.value.code == status


def test_input_error_is_one_line_and_status_1(capsys):
    def main():
        raise InputError("file.nii: is broken; make it again")

    with pytest.raises(SystemExit) as left:
        run_script(main)
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: file.nii: is broken; make it again\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_its_status_without_a_stack_trace(capsys, number, status):
    def main():
        # As where the tests are started in a shell's background, which ignores Ctrl-C.
        if signal.getsignal(number) == signal.SIG_IGN:
            pytest.skip("this signal is ignored here")
        os.kill(os.getpid(), number)
        time.sleep(10)

    with pytest.raises(SystemExit) as left:
        run_script(main)
    assert left.value.code == status
    assert capsys.readouterr().err == ""


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

    with pytest.raises(SystemExit) as left:
        run_script(main)
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: too little memory")
    assert said.count("\n") == 1


def test_our_own_mistakes_keep_their_stack_trace():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 // 0)
