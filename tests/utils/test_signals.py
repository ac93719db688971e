import os
import signal

import pytest

from sam_lungs.utils.signals import SIGNALS, Stop, Stopped, stop_at_once


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # Which is ignored where the tests are started in a shell's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_and_the_next_would_end_the_process(number, status):
    stop_at_once()
    with pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.exit_status == status
    assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.parametrize("number", SIGNALS)
def test_inside_a_stop_a_signal_only_asks(number, capfd):
    stop_at_once()
    with Stop() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.number == number
        # The next one ends the process at once.
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL, signal.SIG_DFL]
    assert "stopping after what is in hand" in capfd.readouterr().err


def test_a_stop_that_nobody_asked_for_leaves_things_as_they_were():
    stop_at_once()
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop() as stop:
        pass
    assert not stop
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_was_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop_at_once()
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
