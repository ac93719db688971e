"""Runs with other images or reference masks are not compared."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from conftest import chest, save_nifti
from results_folders import RECORD, write_volume

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.readers import read_volume
from sam_lungs.study.results import SliceResult
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.compare import compare_runs, read_runs
from sam_lungs.summary.references import different_inputs
from sam_lungs.summary.settings import settings_of_runs
from sam_lungs.utils.errors import InputError

MM = {"metrics": ["jaccard", "dice", "nsd"]}
APART = replace(RECORD, options=RECORD.options | {"object": "left"}, segmenter={"model": "x"})


@pytest.fixture
def write(tmp_path):
    """Write a run over two volumes with two slices of lung; return its folder."""

    def write_run(name: str, record: RunRecord = RECORD, areas=(10, 20)):
        for image, dice in (("image_a", 0.9), ("image_b", 0.8)):
            slices = [
                SliceResult(index, dice / 2, dice, dice, area, 10)
                for index, area in enumerate(areas)
            ]
            write_volume(tmp_path / name / image, slices, record)
        return tmp_path / name

    return write_run


def files(*names: str) -> list[dict]:
    return [{"file": name, "sha256": f"of {name}"} for name in names]


def reading(**values: object) -> dict:
    return RECORD.reading | values


@pytest.mark.parametrize(
    ("changes", "areas", "name"),
    [
        ({"masks": files("other.npy")}, (10, 20), "reference masks"),
        ({"masks": files("other.nii.gz")}, (10, 21), "reference masks"),
        ({"masks": files("other.nii.gz")}, (10, 20), None),  # perhaps the source of the array
        ({"masks": files("a.png", "b.png")}, (10, 21), "reference masks"),
        ({"masks": files("a.png", "b.png")}, (10, 20), None),
        ({"masks": [{"file": "elsewhere/m.npy", "sha256": "3a5c5"}]}, (10, 20), None),
        ({"image": files("other.npy")[0]}, (10, 20), "image"),
        ({"image": {}}, (10, 20), None),  # masks were scored without it
        ({"reading": reading(objects={"left": [1]})}, (10, 19), "--labels"),
        ({"reading": reading(objects={"lung": [1, 2]})}, (10, 20), None),
        ({"reading": reading(align="voxels")}, (10, 20), None),
        ({"reading": reading(align="voxels")}, (9, 20), "--align"),
        ({"reading": reading(spacing_mm=[1.0, 2.0])}, (10, 20), None),
        ({"reading": reading(window="none"), "window_hu": [0.0, 1.0]}, (10, 20), None),
        ({"protocol": {"points": "none"}, "segmenter": {"model": "box"}}, (10, 20), None),
        ({"options": {"precision": "bfloat16", "tolerance_mm": [2.0]}}, (10, 20), None),
    ],
)
def test_runs_are_compared_only_over_the_same_images_and_masks(write, changes, areas, name):
    folders = [write("paper"), write("same"), write("other", replace(RECORD, **changes), areas)]
    if name is None:
        assert "mixed" not in compare_runs(read_runs(folders))
        return
    with pytest.raises(InputError) as caught:
        read_runs(folders)
    message = str(caught.value)
    assert message.count("\n") == 0
    for word in ("paper and other", "in 2 volumes, such as a (", f"({name}: ", "--allow_mixed"):
        assert word in message
    runs = read_runs(folders, allow_mixed=True)
    assert [line.split(" had other")[0] for line in different_inputs(runs)] == [
        "paper and other",
        "same and other",
    ]
    mixed = compare_runs(runs).set_index(["first", "second"])["mixed"].fillna("")
    assert mixed.groupby(level=[0, 1]).first().to_dict() == {
        ("paper", "other"): name,
        ("paper", "same"): "",
        ("same", "other"): name,
    }


def test_two_ways_of_reading_are_compared(write):
    left, other = (
        replace(RECORD, reading=reading(objects=objects, align="affine"))
        for objects in ({"left": [1], "rest": [2]}, {"lung": [3]})
    )
    voxels = replace(left, reading=left.reading | {"align": "voxels"})
    for record, name in ((other, "--labels: 1, 2 and 3"), (voxels, "--align: affine and voxels")):
        with pytest.raises(InputError, match=name):
            read_runs([write("left", left), write("other", record)])


def test_another_spacing_gives_other_distances(write):
    folders = [
        write(name, replace(RECORD, options=MM, reading=reading(spacing_mm=spacing_mm)))
        for name, spacing_mm in (("one", [1.0, 1.0]), ("other", [2.0, 2.0]))
    ]
    with pytest.raises(InputError, match=r"--spacing_mm: 1\.0, 1\.0 and 2\.0, 2\.0"):
        read_runs(folders)


def test_objects_that_were_scored_apart_are_compared(write):
    right = replace(APART, options=APART.options | {"object": "right"})
    folders = [write("left", APART, (10, 20)), write("right", right, (7, 8))]
    assert "mixed" not in compare_runs(read_runs(folders))
    table = settings_of_runs({name: run.records for name, run in read_runs(folders).items()})
    assert table.to_dict("list") == {"setting": ["object"], "left": ["left"], "right": ["right"]}
    # Of another model, or all objects together.
    for record in (replace(right, segmenter={"model": "y"}), RECORD):
        with pytest.raises(InputError, match="left and others had other"):
            read_runs([write("left", APART, (10, 20)), write("others", record, (17, 28))])


def test_an_array_is_known_by_the_file_it_was_converted_from(write, tmp_path):
    masks = chest()[1]
    path = save_nifti(tmp_path / "masks.nii.gz", masks)
    other = save_nifti(tmp_path / "moved.nii.gz", masks[:, ::-1])
    array = tmp_path / "masks.npy"
    write_numpy(read_volume(path), array)
    original, moved, converted = (
        write(each.stem, replace(RECORD, masks=[read_volume(each).identity]))
        for each in (path, other, array)
    )
    converted = converted.rename(tmp_path / "converted")
    assert different_inputs(read_runs([original, converted])) == []
    # The same areas, but of another file.
    with pytest.raises(InputError, match="reference masks: moved"):
        read_runs([moved, converted])
    (tmp_path / "masks.npy.json").unlink()
    assert different_inputs(read_runs([moved, converted])) == []


def test_masks_in_another_format_are_told_by_their_areas(write, tmp_path):
    masks = chest()[1]
    paths = [save_nifti(tmp_path / name, masks) for name in ("zipped.nii.gz", "plain.nii")]
    paths += [tmp_path / "converted.npz", tmp_path / "bare.npz"]
    write_numpy(read_volume(paths[1]), paths[2])
    np.savez(paths[3], masks)
    records = [replace(RECORD, masks=[read_volume(path).identity]) for path in paths]
    folders = [write(path.stem, record) for path, record in zip(paths, records, strict=True)]
    assert different_inputs(read_runs(folders)) == []
    for record in records[1:]:
        with pytest.raises(InputError, match="reference masks: zipped"):
            read_runs([folders[0], write("other", record, (10, 21))])


def test_the_script_refuses_and_writes_what_is_mixed(run, write, tmp_path):
    other = replace(RECORD, masks=files("other.npy"))
    arguments = ["-r", write("paper"), write("other", other), "--output_folder", tmp_path / "out"]
    done = run("compare_runs.py", *arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "reference masks: masks.npy 3a5c5 and other.npy of other" in done.stderr
    assert not (tmp_path / "out").exists()
    done = run("compare_runs.py", *arguments, "--allow_mixed")
    assert done.returncode == 0
    assert "warning: paper and other had other images or reference masks" in done.stderr
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert {row["mixed"] for row in csv.DictReader(file)} == {"reference masks"}
