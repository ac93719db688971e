"""The example of a config file in docs/running.md, and the same file with other scripts."""

import re

import pytest
from conftest import ROOT, assert_refused, chest, save_nifti

SECTION = ROOT.joinpath("docs/running.md").read_text().split("\n## A study in one file\n")[1]
STUDY = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[1]
DATASET = "images: '{case}_ct.nii.gz'\nmasks: '{case}_lungs.nii.gz'\npatient: '(.*)_scan'\n"


@pytest.fixture
def study(tmp_path):
    """The example, beside its dataset, in a folder of its own."""
    folder = tmp_path / "a study"
    folder.mkdir()
    image, masks = chest()
    save_nifti(folder / "a_scan_ct.nii.gz", image)
    save_nifti(folder / "a_scan_lungs.nii.gz", masks)
    (folder / "my_dataset.yml").write_text(DATASET)
    (folder / "study.yml").write_text(STUDY)
    return folder / "study.yml"


def test_the_example_is_the_same_as_its_options(run, study):
    results = study.parent / "results"
    given = ("--model", "compact", "--device", "cpu", "--no_report")
    done = run("process_image.py", "--config", study, *given)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    folders = sorted(path.name for path in results.iterdir())
    assert folders == ["no_box", "paper"]
    tables = sorted(results.rglob("*.csv"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tables}
    assert "nsd_3d_2.5mm" in (results / "paper/a_scan/results.csv").read_text()
    # The same options on a command line are the same run, which is complete.
    words = [
        *("--dataset", study.parent / "my_dataset.yml", "--output_folder", results),
        *("--prompts", "paper,no_box", "--empty_slices", "nearest"),
        *("--metrics", "dice_3d,nsd_3d", "--tolerance_mm", "1,2.5"),
        *("--labels", "left=1", "right=2", *given[:4]),
    ]
    done = run("process_image.py", *words)
    assert done.returncode == 0, done.stderr
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tables} == before


def test_every_script_takes_a_config_file(run, study):
    message = "my_dataset.yml: unknown option images; a dataset file is another file"
    for script in ("explore_prompts", "score_masks", "join_results", "make_report", "compare_runs"):
        done = run(f"{script}.py", "--config", study.parent / "my_dataset.yml")
        assert_refused(done, message)
    (study.parent / "convert.yml").write_text(
        "input_file_path: a_scan_ct.nii.gz\noutput_file_path: new.npy\ndry_run: true\n"
    )
    done = run("nifti_to_numpy.py", "--config", study.parent / "convert.yml", "--no_dry_run")
    assert done.returncode == 0, done.stderr
    assert (study.parent / "new.npy").exists()
