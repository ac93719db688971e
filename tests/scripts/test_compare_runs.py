import shutil

import pandas as pd
import pytest
from conftest import assert_refused

SCRIPT = "compare_runs.py"


@pytest.fixture
def runs(tmp_path):
    """Two runs of five cases; the second is better in every case."""
    for name, gain in (("paper", 0.0), ("no_box", 0.05)):
        for case in range(5):
            value = 0.5 + gain * (case + 1)
            folder = tmp_path / name / f"image_{case}"
            folder.mkdir(parents=True)
            table = f"slice,jaccard,dice\n0,{value},{value}\n"
            (folder / "raw_data_2023-05-27_09-43-55.csv").write_text(table)
    return [tmp_path / "paper", tmp_path / "no_box"]


def test_the_table_is_written_and_printed(run, runs, tmp_path):
    done = run(SCRIPT, "-r", *runs, "--output_folder", tmp_path / "comparison")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "the patients of 5 of 5 volumes are not known" in line
    lines = [line.split() for line in done.stdout.splitlines()]
    start = next(number for number, words in enumerate(lines) if words[:2] == ["first", "second"])
    header, row = lines[start : start + 2]
    table = pd.read_csv(tmp_path / "comparison" / "comparison.csv")
    assert header == list(table.columns)
    assert row[:4] == ["paper", "no_box", "jaccard", "5"]
    assert table["difference"].tolist() == pytest.approx([0.15, 0.15])
    assert table["p"].tolist() == table["effect_p"].tolist() == [0.0625, 0.0625]
    assert table["p_holm"].tolist() == [0.125, 0.125]
    assert table[["slices", "slices_left_out"]].values.tolist() == [[5, 0], [5, 0]]
    assert not (tmp_path / "comparison" / "ranking.csv").exists()


def test_more_than_two_runs_are_ranked(run, runs, tmp_path):
    third = shutil.copytree(runs[0], tmp_path / "third")
    done = run(SCRIPT, "-r", *runs, third, "--output_folder", tmp_path / "comparison")
    assert done.returncode == 0
    table = pd.read_csv(tmp_path / "comparison" / "ranking.csv")
    assert table["run"].tolist() == ["no_box", "paper", "third"]
    assert table["rank"].tolist() == [1, 2, 2]
    assert table["case_avg"].tolist() == pytest.approx([0.65, 0.5, 0.5])
    assert table["leader_not_best"].isna().all()  # five patients
    assert "leader_not_best" in done.stdout
    # Of two runs there is none, and none of an earlier comparison.
    assert run(SCRIPT, "-r", *runs, "--output_folder", tmp_path / "comparison").returncode == 0
    assert not (tmp_path / "comparison" / "ranking.csv").exists()


def test_patients_are_a_pattern(run, runs, tmp_path):
    done = run(SCRIPT, "-r", *runs, "--patients", "(image)_.", "--output_folder", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert pd.read_csv(tmp_path / "comparison.csv")["cases"].tolist() == [1, 1]


def test_bad_input_is_one_line(run, runs, tmp_path):
    output = ["--output_folder", tmp_path / "comparison"]
    assert_refused(run(SCRIPT, "-r", runs[0], *output), "two or more")
    assert_refused(run(SCRIPT, "-r", runs[0], runs[0], *output), "given twice")
    assert_refused(run(SCRIPT, "-r", *runs, tmp_path / "missing", *output), "missing")
    assert not (tmp_path / "comparison").exists()
