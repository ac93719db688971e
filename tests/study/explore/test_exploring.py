"""Explorations of volumes, run as users run them."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from conftest import assert_refused, chest, save_nifti
from faults import Child, contents, finish, is_nightly

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.study.explore.layout import exploration_folder, map_arrays_name, map_name
from sam_lungs.study.explore.options import KINDS, MAPS, ExploreOptions
from sam_lungs.study.explore.results import read_exploration, read_map
from sam_lungs.utils.errors import InputError

SCRIPT = "explore_prompts.py"
FILES = ("-i", "image_a.nii.gz", "-m", "masks_a.nii.gz")
THRESHOLD = (*FILES, "--model", "threshold", "--output_folder", "out")
COLUMNS = {
    "map": ["row", "column"],
    "negative_map": ["row", "column"],
    "jitter": ["sigma_mm", "repeat"],
    "points": ["points", "box", "repeat", "rule"],
    "clicks": ["clicks", "row", "column", "label"],
    "best": ["evaluations", "start_dice", "prompts"],
}
OBJECTS = {"map": {"all", "1", "2"}, "negative_map": {"all", "1", "2"}, "clicks": {"1", "2"}}
# So that a test takes no longer than necessary.
FEW = {
    "jitter": ("--repeats", 2),
    "points": ("--repeats", 2, "--points_per_object", "1..2"),
    "best": ("--budget", 20),
    "clicks": ("--clicks", 3, "--targets", "0.01"),
    "map": ("--step_pixels", 20),
    "negative_map": ("--step_pixels", 20),
}


@pytest.fixture
def folder(tmp_path):
    for kind, array in zip(("image", "masks"), chest(), strict=True):
        save_nifti(tmp_path / f"{kind}_a.nii.gz", array)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_has_values_and_a_summary(folder, run, kind):
    model = "compact" if kind in ("clicks", "negative_map") else "threshold"
    arguments = (kind, *FILES, "--model", model, "--output_folder", "out", *FEW.get(kind, ()))
    done = run(SCRIPT, *arguments)
    assert done.returncode == 0, done.stderr
    results = exploration_folder(folder / "out", kind, "", "image_a")
    found = read_exploration(results)
    values = found.values
    assert found.record.options["kind"] == kind
    assert list(values) == ["slice", "object", *COLUMNS[kind], "jaccard", "dice"]
    assert set(values["slice"]) == {1, 2}
    assert set(values["object"]) == OBJECTS.get(kind, {"all"})
    np.testing.assert_allclose(values["dice"], 2 * values["jaccard"] / (1 + values["jaccard"]))
    assert not found.summary["value"].isna().any()
    maps = {map_name(index) for index in (1, 2)} | {map_arrays_name(index) for index in (1, 2)}
    assert {path.name for path in results.glob("maps/*")} == (maps if kind in MAPS else set())
    for index in (1, 2) if kind in MAPS else ():
        for name, of_object in read_map(results / "maps" / map_arrays_name(index)).items():
            rows = values[(values["slice"] == index) & (values["object"] == name)]
            places = pd.MultiIndex.from_product([of_object.rows, of_object.columns])
            assert rows[["row", "column"]].apply(tuple, axis=1).tolist() == places.tolist()
            np.testing.assert_array_equal(of_object.dice.ravel(), rows["dice"])
    if kind == "jitter":
        again = run(SCRIPT, *arguments)
        assert again.stdout.startswith("image_a: finished before, skipped\n")


def test_several_protocols_and_models_have_folders(folder, run):
    arguments = ("--model", "threshold,box", "--prompts", "paper,box_only", "--repeats", 2)
    assert run(SCRIPT, "jitter", *FILES, *arguments, "--output_folder", "out").returncode == 0
    found = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("values.csv")}
    assert found == {
        f"out/explore/jitter/{model}/{protocol}/image_a"
        for model in ("threshold", "box")
        for protocol in ("paper", "box_only")
    }


def test_a_killed_exploration_resumes_to_the_same_bytes(folder):
    _, masks = chest()
    save_nifti(folder / "masks_a.nii.gz", (masks > 0).astype(np.uint8))
    arguments = (SCRIPT, "map", *THRESHOLD, "--step_pixels", 20)
    counting = Child(folder, *arguments, fault=("kill", 0))
    assert counting.wait() == 0, counting.output_lines()
    writes = int(counting.streams()[0].splitlines()[-1])
    expected = contents(folder / "out")
    # While the slices are recorded, and while the maps are written.
    places = range(1, writes + 1) if is_nightly() else (writes // 3, writes // 2)
    for place in places:
        shutil.rmtree(folder / "out")
        assert Child(folder, *arguments, fault=("kill", place)).wait() == -signal.SIGKILL
        finish(folder, *arguments)
        assert contents(folder / "out") == expected, f"killed at write {place} of {writes}"


def test_other_options_are_refused_until_overwrite(folder, run):
    few = ("--repeats", 2)
    assert run(SCRIPT, "jitter", *THRESHOLD, *few).returncode == 0
    before = contents(folder / "out")
    refused = run(SCRIPT, "jitter", *THRESHOLD, *few, "--sigma_mm", "3")
    assert_refused(refused, "--sigma_mm", "--overwrite")
    assert contents(folder / "out") == before
    replaced = run(SCRIPT, "jitter", *THRESHOLD, *few, "--sigma_mm", "3", "--overwrite")
    assert replaced.returncode == 0
    assert set(pd.read_csv(folder / "out/explore/jitter/image_a/values.csv")["sigma_mm"]) == {3}


def test_numbers_depend_neither_on_other_slices_nor_on_the_masks_of_them(folder, run):
    _, masks = chest()
    assert run(SCRIPT, "jitter", *THRESHOLD, "--repeats", 3).returncode == 0
    whole = read_exploration(folder / "out/explore/jitter/image_a").values
    masks[:, :, 1] = 0
    save_nifti(folder / "masks_a.nii.gz", masks)
    assert run(SCRIPT, "jitter", *THRESHOLD, "--repeats", 3, "--overwrite").returncode == 0
    one = read_exploration(folder / "out/explore/jitter/image_a").values
    pd.testing.assert_frame_equal(one, whole[whole["slice"] == 2].reset_index(drop=True))


def test_embeddings_are_saved_and_used(folder, run):
    saved = (*FILES, "--model", "compact", "--embeddings_folder", "kept", "--repeats", 2)
    for output in ("one", "two"):
        assert run(SCRIPT, "jitter", *saved, "--output_folder", output).returncode == 0
    assert len(list(folder.glob("kept/compact/image_a/*.npz"))) == 2
    one, two = (
        contents(folder / f"{name}/explore/jitter/image_a")["values.csv"] for name in ("one", "two")
    )
    assert one == two


def test_one_slice_is_printed_and_drawn(folder, run):
    done = run(SCRIPT, "map", *FILES, "--model", "threshold", "--slice", 2, "--debug")
    assert done.returncode == 0, done.stderr
    names = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert names[:3] == ["all missed_slices", "all share_dice_0.8", "all share_dice_0.9"]
    assert names[-1] == "2 best_slice"
    written = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*map*") if path.is_file()
    }
    pictures = "debug/explore/map/image_a/slice_2_map"
    assert written == {f"{pictures}.png", f"{pictures}.npz"}


def test_objects_have_their_names(folder, run):
    arguments = ("--slice", 2, "--labels", "left=1", "right=2")
    done = run(SCRIPT, "clicks", *FILES, "--model", "threshold", *arguments)
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"left", "right"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("map, negative_map",)),
        (("map", "jitter"), ("map, negative_map",)),
        (("walk",), ("walk", "map")),
        (("map", "--sigma_mm", "2"), ("--sigma_mm has no effect with map",)),
        (("jitter", "--sigma_mm", "2,2"), ("twice",)),
        (("jitter", "--sigma_mm", "-2"), ("--sigma_mm", "1,2.5,10")),
        (("jitter", "--alone"), ("--alone",)),
        (("map", "--step_pixels", "0"), ("--step_pixels",)),
        (("map", "--debug"), ("--debug",)),
        (("map", "--save_masks"), ("--save_masks",)),
        (("map", "--metrics", "nsd"), ("--metrics",)),
        (("points", "--points_per_object", "9..2"), ("--points_per_object", "swap")),
        (("points", "--rule", "best"), ("random, spread",)),
        (("points", "--prompts", "paper"), ("points samples its own",)),
        (("clicks", "--targets", "1.5"), ("--targets",)),
        (("points", "--rule", "spread", "--repeats", "3"), ("--repeats has no effect",)),
        (("map", "--model", "box"), ("box", "another model")),
        (("negative_map", "--model", "threshold"), ("threshold", "another model")),
    ],
)
def test_mistakes_are_one_line(folder, run, arguments, words):
    assert_refused(run(SCRIPT, *arguments, *FILES), *words)
    assert not (folder / "results").exists()


def test_jitter_needs_the_size_of_pixels(folder, run):
    for kind in ("image", "masks"):
        path = folder / f"{kind}_a.npy"
        write_numpy(read_nifti(folder / f"{kind}_a.nii.gz"), path)
        path.with_name(f"{path.name}.json").unlink()
    arguments = ("-i", "image_a.npy", "-m", "masks_a.npy", "--model", "threshold")
    assert_refused(run(SCRIPT, "jitter", *arguments), "image_a.npy", "--spacing_mm")
    with_spacing = (*arguments, "--spacing_mm", "0.7,0.8,5", "--repeats", 2)
    assert run(SCRIPT, "jitter", *with_spacing).returncode == 0


def test_a_changed_result_is_not_read(folder, run):
    assert run(SCRIPT, "jitter", *THRESHOLD, "--repeats", 2).returncode == 0
    results = folder / "out/explore/jitter/image_a"
    (results / "values.csv").write_text("slice\n")
    with pytest.raises(InputError, match="has changed"):
        read_exploration(results)
    shutil.rmtree(results)
    assert read_exploration(results) is None


def test_the_record_has_every_option_that_decides(folder):
    fewer = ExploreOptions(("image.npy",), ("masks.npy",), kind=("clicks",))
    assert fewer.objects == "apart"
    assert json.dumps(fewer.targets) == "[0.85, 0.9, 0.95]"


def test_an_object_cannot_be_named_all(folder, run):
    arguments = (*FILES, "--model", "threshold", "--labels", "all=1", "right=2")
    assert_refused(run(SCRIPT, "map", *arguments), "named all")


def test_the_first_prompt_may_be_a_box(folder, run):
    arguments = (*THRESHOLD, "--prompts", "box_only", "--clicks", 2)
    assert run(SCRIPT, "clicks", *arguments).returncode == 0
    values = read_exploration(folder / "out/explore/clicks/box_only/image_a").values
    first = values[values["clicks"] == 1]
    assert first[["row", "column", "label"]].isna().all(axis=None)
