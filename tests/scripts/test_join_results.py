import pytest
from conftest import assert_refused

SCRIPT = "join_results.py"
FILES = [
    "intervals.csv",
    "joint_cases.csv",
    "joint_raw_data.csv",
    "joint_results.csv",
    "results.csv",
]
TABLE = "raw_data_2023-05-27_09-43-55.csv"


@pytest.fixture
def results(tmp_path):
    for name, value in (("image_a", 0.5), ("image_b", 0.75)):
        (tmp_path / "results" / name).mkdir(parents=True)
        text = f"slice,jaccard,dice\n0,{value},{value}\n"
        (tmp_path / "results" / name / TABLE).write_text(text)
    return tmp_path / "results"


def test_the_tables_are_written_and_the_summary_is_printed(run, results):
    done = run(SCRIPT, "--results_folder_path", results)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "the patients of 2 of 2 volumes are not known" in line
    header, jaccard, *_ = (line.split() for line in done.stdout.splitlines())
    assert header == ["metric", "min", "max", "avg", "std", "slices"]
    assert jaccard[:4] == ["jaccard", "0.5", "0.75", "0.625"]
    assert "intervals over patients" in done.stdout
    assert sorted(path.name for path in results.iterdir() if path.is_file()) == FILES


def test_patients_are_a_pattern_or_a_dataset_file(run, results, tmp_path):
    (tmp_path / "data.yml").write_text("table: cases.csv\n")
    cases = "case,image,masks,patient\nimage_a,a,b,p\nimage_b,b,c,p\n"
    (tmp_path / "cases.csv").write_text(cases)
    dataset = ["--dataset", tmp_path / "data.yml"]
    for options, lines in (
        (["--patients", "(image)_."], ["image", "2"]),
        (dataset, ["p", "2"]),
        ([*dataset, "--cases", "image_a,image_b"], ["p", "2"]),
    ):
        done = run(SCRIPT, "-r", results, *options)
        assert (done.returncode, done.stderr) == (0, "")
        row = (results / "joint_cases.csv").read_text().splitlines()[1].split(",")
        assert [row[0], row[-1]] == lines
    assert_refused(run(SCRIPT, "-r", results, *dataset, "--cases", "c"), "has no case 'c'")


def test_the_tables_can_be_written_to_another_folder(run, results, tmp_path):
    assert run(SCRIPT, "-r", results, "--output_folder", tmp_path / "joined").returncode == 0
    assert len(list((tmp_path / "joined").iterdir())) == len(FILES)
    assert not list(results.glob("*.csv"))


def test_bad_input_is_one_line(run, results, tmp_path):
    assert_refused(run(SCRIPT, "-r", tmp_path / "missing"), "missing")
    (results / "image_a" / TABLE).write_text("slice,jaccard,dice\n0,0.5,0.")
    assert_refused(run(SCRIPT, "-r", results), "image_a", "process the image again")
    assert not list(results.glob("*.csv"))
