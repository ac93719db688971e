"""`--part K/N`: which cases a part has, and what is left to a run of all cases."""

from pathlib import Path

import pytest
from conftest import assert_refused, chest, save_nifti
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.study import run as study_run
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.input_options import parse_part
from sam_lungs.study.options import Options
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.study.setup import check_names
from sam_lungs.utils.errors import InputError

FAST = ("--model", "box", "--device", "cpu")


def of_paths(count: int, **options) -> Options:
    numbers = range(count)
    images, masks = ([Path(f"{kind}_{each}.npy") for each in numbers] for kind in "im")
    return Options(images, masks, **options)


@given(st.integers(1, 12), st.integers(1, 20))
def test_the_parts_together_are_all_cases_once(parts, count):
    every = of_paths(count).case_files
    dealt = [of_paths(count, part=(number + 1, parts)).case_files for number in range(parts)]
    assert sorted((each for part in dealt for each in part), key=every.index) == every
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_part_is_every_nth_case():
    names = [files.name for files in of_paths(5, part=(2, 2)).case_files]
    assert names == ["i_1", "i_3"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "a/b", "1/2/3", "-1/2", "1/0", "1 /2"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(InputError, match="give K/N, such as 1/4, with K from 1 to N"):
        parse_part(text)


def test_a_part_has_no_report():
    with pytest.raises(InputError, match="--report is of all cases; leave it out"):
        of_paths(2, part=(1, 2), report=True)


def test_names_are_compared_across_parts(tmp_path):
    images, masks = [Path("a/x.npy"), Path("b/x.npy")], [Path("a/m.npy"), Path("b/m.npy")]
    with pytest.raises(InputError, match=r"has the same name as a/x\.npy"):
        check_names(Options(images, masks, part=(1, 2), output_folder=tmp_path))


def test_predictions_keep_their_cases():
    images, masks, predictions = (
        [Path(f"{each}.npy") for each in text] for text in ("ab", "mn", "pq")
    )
    options = ScoreOptions(images, masks, predictions=predictions, part=(2, 2))
    with pytest.raises(InputError, match=r"p\.npy: no such file"):
        options.prediction_paths()
    assert [files.path for files in options.case_files] == [Path("b.npy")]


def test_explorations_have_parts():
    options = ExploreOptions(
        *[[Path(f"{a}{b}") for b in "12"] for a in "im"], kind=["map"], part=(2, 2)
    )
    assert [files.name for files in options.case_files] == ["i2"]


@pytest.fixture
def dataset(tmp_path):
    for name in "abc":
        image, masks = chest()
        for kind, array in (("images", image), ("masks", masks)):
            (tmp_path / kind).mkdir(exist_ok=True)
            save_nifti(tmp_path / kind / f"{name}.nii.gz", array)
    save_nifti(tmp_path / "images" / "lonely.nii.gz", chest()[0])
    file = tmp_path / "dataset.yml"
    file.write_text("images: 'images/{case}.nii.gz'\nmasks: 'masks/{case}.nii.gz'\n")
    return file


def test_a_run_in_parts_leaves_the_report_to_a_run_of_all(dataset, run, tmp_path):
    study = ("--dataset", dataset, *FAST)
    second = run("process_image.py", *study, "--part", "2/2")
    assert (second.returncode, second.stderr.count("error")) == (0, 0), second.stderr
    results = tmp_path / "results"
    assert [path.name for path in results.iterdir()] == ["b"]

    first = run("process_image.py", *study, "--part", "1/2")
    assert "lonely.nii.gz: an image without masks" in first.stderr
    assert first.returncode == 1
    assert sorted(path.name for path in results.iterdir()) == ["a", "b", "c"]

    (tmp_path / "images" / "lonely.nii.gz").unlink()
    empty = run("process_image.py", *study, "--part", "4/4")
    assert (empty.returncode, empty.stdout) == (0, "")
    assert empty.stderr == "part 4/4 of 3 cases is empty\n"
    dry = run("process_image.py", *study, "--part", "3/4", "--dry_run")
    assert [line.split()[0] for line in dry.stdout.splitlines() if "nii.gz" in line] == ["c"]
    refused = run("process_image.py", *study, "--part", "1/2", "--report")
    assert_refused(refused, "in place of --part")

    explore = ("jitter", *study, "--repeats", 1, "--sigma_mm", 1)
    assert run("explore_prompts.py", *explore, "--part", "1/2").returncode == 0
    assert not list(results.rglob("explored.csv"))
    assert run("explore_prompts.py", *explore).stdout.count("finished before, skipped") == 2
    assert list(results.rglob("explored.csv"))

    predicted = tmp_path / "predicted"
    predicted.mkdir()
    save_nifti(predicted / "c.nii.gz", (chest()[1] == 1).astype("uint8"))
    score = ("--predictions", predicted, *study[:2], "--name", "theirs")
    done = run("score_masks.py", *score, "--part", "3/3")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (results / "theirs").iterdir()] == ["c"]


def test_a_volume_is_read_when_its_turn_comes(tmp_path, monkeypatch):
    image, masks = chest()
    paths = [tmp_path / f"{name}.nii.gz" for name in "abcd"]
    for path in paths:
        save_nifti(path, image)
    of_all = [save_nifti(tmp_path / "masks.nii.gz", masks)] * 4
    events, read_case_for = [], study_run.read_case_for

    def read(files, options):
        events.append(f"read {files.name}")
        return read_case_for(files, options)

    def process(case, segmenters, options, study):
        events.append(f"process {case.name}")
        return 0

    monkeypatch.setattr(study_run, "read_case_for", read)
    options = Options(paths, of_all, model="box", device="cpu")
    assert study_run.run_study(options, study_run.STUDY._replace(process_case=process)) == 0
    # One volume is read ahead.
    assert events.index("read c") > events.index("process a")
    assert events.index("read d") > events.index("process b")
