import pytest

from sam_lungs.errors import InputError, run_script


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


def test_ctrl_c_is_status_130_without_a_stack_trace(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as left:
        run_script(main)
    assert left.value.code == 130
    assert capsys.readouterr().err == ""


def test_our_own_mistakes_keep_their_stack_trace():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 // 0)
