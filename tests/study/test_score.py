"""Scores of masks that were made elsewhere, as a user gets them from `score_masks.py`."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import assert_refused, chest, save_nifti

from sam_lungs.study.metrics import dice

IMAGE, MASKS = chest(slices=5)
AFFINE = np.diag([-0.7, -0.8, 5, 1])
METRICS = "nsd,hd95,lung_slices_dice,dice_3d,nsd_3d,hd95_3d"
TABLES = ("raw_data.csv", "results.csv", "empty_slices.csv")


@pytest.fixture
def reference(tmp_path):
    """The path of reference masks."""
    return save_nifti(tmp_path / "masks_a.nii.gz", MASKS)


def predicted_masks() -> np.ndarray:
    """Masks that miss the right lung in slice 2, and find something in slice 0."""
    predicted = np.roll(MASKS, 1, axis=1)
    predicted[:, :, 2][predicted[:, :, 2] == 2] = 0
    predicted[3:5, 3:5, 0] = 1
    return predicted


def score(run, tmp_path, *arguments, name="theirs"):
    """Score, and return the folder of the results of one case."""
    out = tmp_path / "out"
    done = run("score_masks.py", "--name", name, "--output_folder", out, *arguments)
    assert done.returncode == 0, done.stderr
    return out / name, done


def test_a_file_against_a_file(run, tmp_path, reference):
    predicted = predicted_masks()
    path = save_nifti(tmp_path / "theirs.nii.gz", predicted)
    folder, _ = score(run, tmp_path, "-p", path, "-m", reference, "--metrics", METRICS)
    table = pd.read_csv(folder / "a" / "raw_data.csv", index_col="slice")
    for index in range(1, 5):
        one, other = predicted[:, :, index] > 0, MASKS[:, :, index] > 0
        assert table.loc[index, "dice"] == dice(one, other)
        assert table.loc[index, "predicted_pixels"] == one.sum()
    assert table.loc[0, ["dice", "nsd_1mm"]].isna().all()
    assert table[["score", "interactions"]].isna().all(axis=None)
    results = pd.read_csv(folder / "a" / "results.csv", index_col="metric")["avg"]
    assert results["dice_3d"] == dice(predicted > 0, MASKS > 0)
    assert results["lung_slices_dice"] == pytest.approx(
        dice(predicted[:, :, 1:] > 0, MASKS[:, :, 1:] > 0)
    )
    assert "interactions" not in results
    empty = pd.read_csv(folder / "a" / "empty_slices.csv")
    assert empty[["slice", "predicted_pixels"]].to_numpy().tolist() == [[0, 4]]
    assert empty["predicted_mm2"][0] == pytest.approx(4 * 0.7 * 0.8)


def test_the_saved_masks_of_a_run_give_its_tables_byte_for_byte(run, tmp_path):
    image = save_nifti(tmp_path / "image_a.nii.gz", IMAGE)
    masks = save_nifti(tmp_path / "masks_a.nii.gz", MASKS)
    for name, options in {
        "nearest": ["--empty_slices", "nearest", "--metrics", METRICS, "--tolerance_mm", "1,2.5"],
        "skip": ["--metrics", "nsd,hd95,lung_slices_dice"],
    }.items():
        out = tmp_path / name
        pair = ["-i", image, "-m", masks, "--output_folder", out]
        done = run(
            "process_image.py", *pair, *options, "--model", "compact", "--save_masks",
            "--prompts", "paper,points",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        metrics = options[options.index("--metrics") :]
        for protocol in ("paper", "points"):
            predictions = out / protocol / "image_a" / "predicted_masks.nii.gz"
            done = run("score_masks.py", *pair, "-p", predictions, "--name", protocol + "_scored",
                       *metrics)  # fmt: skip
            assert done.returncode == 0, done.stderr
            made, scored = (out / each / "image_a" for each in (protocol, protocol + "_scored"))
            for table in TABLES:
                if table == "empty_slices.csv" and name == "skip":
                    assert not (made / table).exists()
                    assert not (scored / table).exists()
                else:
                    assert (made / table).read_bytes() == (scored / table).read_bytes()
            records = [json.loads((each / "run.json").read_text()) for each in (made, scored)]
            for key in ("segmenter", "protocol", "image", "masks"):
                assert records[0][key] == records[1][key]
            assert records[1]["predictions"][0]["file"] == str(predictions)
    # Without the slices that have no lung there is no predicted volume.
    done = run("score_masks.py", *pair, "-p", predictions, "--metrics", "dice_3d")
    assert_refused(done, "left out the slices without objects", "--empty_slices nearest")
    # A table that was changed since is not taken over.
    table = predictions.with_name("raw_data.csv")
    table.write_text(table.read_text().replace("0.9", "0.8"))
    assert_refused(run("score_masks.py", *pair, "-p", predictions), "raw_data.csv", "changed")


def test_predictions_are_placed_by_their_affine(run, tmp_path, reference):
    predicted = predicted_masks()
    straight = save_nifti(tmp_path / "straight.nii.gz", predicted)
    folder, _ = score(run, tmp_path, "-p", straight, "-m", reference)
    expected = (folder / "a" / "raw_data.csv").read_bytes()
    # Columns and slices in another order, and cut to the part that holds something.
    turned = predicted[2:, ::-1, ::-1]
    flip = np.array([[0.7, 0, 0, -0.7 * 55], [0, -0.8, 0, -1.6], [0, 0, -5, 5.0 * 4], [0, 0, 0, 1]])
    path = save_nifti(tmp_path / "turned.nii.gz", turned, flip)
    folder, _ = score(run, tmp_path, "-p", path, "-m", reference, name="turned")
    assert (folder / "a" / "raw_data.csv").read_bytes() == expected
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.35
    path = save_nifti(tmp_path / "between.nii.gz", predicted, shifted)
    arguments = ["-p", path, "-m", reference, "--output_folder", tmp_path / "out"]
    assert_refused(run("score_masks.py", *arguments), "between.nii.gz", "0.35 mm")
    folder, _ = score(
        run, tmp_path, "-p", path, "-m", reference, "--align_predictions", "voxels", name="as_is"
    )
    assert (folder / "a" / "raw_data.csv").read_bytes() == expected


def dataset(tmp_path, cases=("a", "b")):
    """A dataset of several cases with the same masks, and a folder for predictions."""
    for name in cases:
        save_nifti(tmp_path / "images" / f"{name}.nii.gz", IMAGE)
        save_nifti(tmp_path / "labels" / f"{name}.nii.gz", MASKS)
    path = tmp_path / "data.yml"
    path.write_text(
        "images: 'images/{case}.nii.gz'\nmasks: 'labels/{case}.nii.gz'\n"
        "labels: {left: 1, right: 2}\npatient: '(.*)'\n"
    )
    return path


def test_a_missing_prediction_is_empty_and_is_named(run, tmp_path):
    for name in ("images", "labels", "theirs"):
        (tmp_path / name).mkdir()
    data = dataset(tmp_path)
    save_nifti(tmp_path / "theirs" / "a.nii.gz", predicted_masks())
    predictions = ["--predictions", tmp_path / "theirs", "--dataset", data]
    options = ["--metrics", "dice_3d,hd95_3d", "--save_masks"]
    folder, done = score(run, tmp_path, *predictions, *options, "--report")
    assert "no predictions for 1 of 2 cases, which count as empty: b" in done.stderr
    volumes = pd.read_csv(folder / "joint_results.csv", index_col="image")
    assert volumes.loc["b", ["dice_avg", "dice_3d"]].tolist() == [0, 0]
    assert np.isnan(volumes.loc["b", "hd95_3d_mm"])
    diagonal_mm = np.hypot(np.hypot(40 * 0.8, 56 * 0.7), 5 * 5)
    assert volumes.loc["b", "hd95_3d_penalised_mm"] == pytest.approx(diagonal_mm)
    page = (folder / "report.html").read_text("utf-8")
    assert "Masks that were made elsewhere, by theirs, are compared" in page
    for of_prompts in ("come from the reference masks", "Gutiérrez et al., 2024", "prompted like"):
        assert of_prompts not in page
    # The report draws the saved masks over the image, without prompts.
    assert (folder / "figures" / "slices_best.png").exists()
    again = score(run, tmp_path, *predictions, *options)[1]
    assert again.stdout.count("finished before, skipped") == 2
    # The same predictions as results folders, and by a pattern.
    for case in ("a", "b"):
        (tmp_path / "runs" / case).mkdir(parents=True)
        save_nifti(tmp_path / "runs" / case / "predicted_masks.nii.gz", predicted_masks())
    for where in (tmp_path / "runs", f"{tmp_path}/runs/{{case}}/predicted_masks.nii.gz"):
        done = run("score_masks.py", "-p", where, "--dataset", data, "--overwrite",
                   "--output_folder", tmp_path / "other")  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "other" / "runs" / "b" / "raw_data.csv").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run("score_masks.py", "-p", empty, "--dataset", data)
    assert_refused(done, "has no predictions, such as a.nii.gz")
    shutil.rmtree(tmp_path / "images")
    done = run("score_masks.py", "-p", tmp_path / "theirs", "--dataset", data)
    assert done.returncode == 1


def test_objects_apart_have_a_folder_each(run, tmp_path):
    for name in ("images", "labels", "theirs"):
        (tmp_path / name).mkdir()
    data, predicted = dataset(tmp_path), predicted_masks()
    for name in ("a", "b"):
        # Other labels than those of the reference masks.
        save_nifti(tmp_path / "theirs" / f"{name}.nii.gz", predicted * 10)
    predictions = ["-p", tmp_path / "theirs", "--dataset", data]
    done = run("score_masks.py", *predictions, "--output_folder", tmp_path / "out")
    assert done.returncode == 1
    assert "labels 10,20, of which some are not in the reference masks" in done.stderr
    chosen = ["--prediction_labels", "right=20", "left=10"]
    folder, _ = score(run, tmp_path, *predictions, "--objects", "apart", *chosen, "--report")
    for name, label in (("left", 1), ("right", 2)):
        table = pd.read_csv(folder / name / "b" / "raw_data.csv", index_col="slice")
        for index in range(1, 5):
            one, other = predicted[:, :, index] == label, MASKS[:, :, index] == label
            assert table.loc[index, "dice"] == dice(one, other)
    assert (folder / "left" / "comparison.csv").exists()
    both, _ = score(run, tmp_path, *predictions, *chosen, name="both")
    table = pd.read_csv(both / "b" / "raw_data.csv", index_col="slice")
    assert table.loc[3, "dice"] == dice(predicted[:, :, 3] > 0, MASKS[:, :, 3] > 0)


def test_one_label_for_all_objects_cannot_be_scored_apart(run, tmp_path, reference):
    path = save_nifti(tmp_path / "united.nii.gz", (predicted_masks() > 0).astype(np.uint8))
    pair = ["-p", path, "-m", reference]
    done = run("score_masks.py", *pair, "--objects", "apart")
    assert_refused(done, "has the labels 1, but the reference masks have 2 objects")
    folder, _ = score(run, tmp_path, *pair)
    assert (folder / "a" / "raw_data.csv").exists()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("the reference", MASKS, "is the same file as the reference masks"),
        ("an image", IMAGE, "masks must hold integral labels|it looks like an image"),
        ("probabilities", np.where(MASKS > 0, 0.7, 0.1), "holds fractions of 1"),
        ("another shape", MASKS[:30], "lie outside|resample|masks have shape"),
    ],
)
def test_what_is_no_prediction_is_refused(run, tmp_path, name, array, message):
    path = tmp_path / "masks_a.nii.gz"
    save_nifti(path, MASKS)
    predictions = tmp_path / "predictions.nii.gz"
    if name == "the reference":
        shutil.copy(path, predictions)
    elif name == "another shape":
        save_nifti(predictions, np.pad(MASKS, ((0, 0), (0, 0), (1, 1)), mode="edge") + 0)
    else:
        noise = np.random.default_rng(0).integers(-1000, 400, IMAGE.shape).astype(np.int16)
        save_nifti(predictions, noise if name == "an image" else array)
    done = run("score_masks.py", "-p", predictions, "-m", path, "--output_folder", tmp_path / "o")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert any(part in done.stderr for part in message.split("|")), done.stderr
    assert not (tmp_path / "o").exists()


def test_mistakes_on_the_command_line_are_one_line(run, tmp_path, reference):
    theirs = save_nifti(tmp_path / "theirs.nii.gz", predicted_masks())
    for arguments, words in (
        (["-m", reference], "give predicted masks with -p"),
        (["-p", theirs], "give masks with -m, or --dataset"),
        (["-p", tmp_path / "none.nii.gz", "-m", reference], "none.nii.gz: no such file"),
        (["-p", theirs, "-m", reference, reference], "same name"),
        (["-p", theirs, "-m", reference, "--name", "a/b"], "--name is a folder's name"),
        (["-p", theirs, "-m", reference, "--window", "lung"], "--window has no effect"),
        (["-p", theirs, "-m", reference, "--tolerance_mm", "1,2"], "add --metrics nsd"),
        (["-p", theirs, "-m", reference, "--metrics", "one_click"], "one_click"),
        (["-p", theirs, "-m", reference, "--prediction_labels", "7"], "has the labels 1,2"),
    ):
        assert_refused(run("score_masks.py", *arguments), words)


def test_a_dry_run_writes_nothing(run, tmp_path, reference):
    theirs = save_nifti(tmp_path / "theirs.nii.gz", predicted_masks())
    before = sorted(tmp_path.rglob("*"))
    done = run("score_masks.py", "-p", theirs, "-m", reference, "--dry_run")
    assert "5 slices, 4 with reference masks, 5 with predicted masks" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_cases_of_one_name_in_two_folders_keep_their_predictions(run, tmp_path):
    pairs = []
    for folder, masks in (("a", MASKS), ("b", np.roll(MASKS, 9, axis=1))):
        (tmp_path / folder).mkdir()
        reference = save_nifti(tmp_path / folder / "x.nii.gz", masks)
        predicted = save_nifti(tmp_path / f"of_{folder}.nii.gz", np.roll(masks, 1, axis=1))
        pairs.append((reference, predicted))
    references, predictions = zip(*pairs, strict=True)
    done = run("score_masks.py", "-m", *references, "-p", *predictions, "--name", "n", "--report")
    assert done.returncode == 0, done.stderr
    for folder in ("a", "b"):
        table = pd.read_csv(tmp_path / folder / "results" / "n" / "x" / "raw_data.csv")
        assert table["dice"][4] > 0.8
        assert (tmp_path / folder / "results" / "n" / "report.html").exists()


def test_other_prediction_labels_are_another_run(run, tmp_path, reference):
    path = save_nifti(tmp_path / "map.nii.gz", predicted_masks() * 3)
    pair = ["-p", path, "-m", reference, "--name", "n", "--output_folder", tmp_path / "out"]
    assert run("score_masks.py", *pair, "--prediction_labels", "3").returncode == 0
    done = run("score_masks.py", *pair, "--prediction_labels", "3,6")
    assert_refused(done, "prediction_labels", "--overwrite")


def test_objects_are_not_guessed(run, tmp_path, reference):
    out = ["--output_folder", tmp_path / "out", "--objects", "apart"]
    names = ["--labels", "left=1", "right=2"]
    united = save_nifti(tmp_path / "united.nii.gz", (predicted_masks() > 0).astype(np.uint8))
    done = run("score_masks.py", "-p", united, "-m", reference, *names, *out)
    assert_refused(done, "has the labels 1, but the reference masks have 2 objects", "--prediction")
    # The remedy of the message.
    theirs = save_nifti(tmp_path / "theirs.nii.gz", predicted_masks() * 10)
    chosen = ["--prediction_labels", "left=10", "right=20"]
    done = run("score_masks.py", "-p", theirs, "-m", reference, *names, *chosen, *out)
    assert done.returncode == 0, done.stderr
    # One object against one label is that object, whatever its number.
    one = save_nifti(tmp_path / "masks_one.nii.gz", (MASKS == 2) * np.uint8(2))
    same = save_nifti(tmp_path / "same.nii.gz", (predicted_masks() == 2).astype(np.uint8))
    done = run("score_masks.py", "-p", same, "-m", one, *out, "--name", "one")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "one" / "2" / "one" / "raw_data.csv")
    assert table["dice"][4] == dice(predicted_masks()[:, :, 4] == 2, MASKS[:, :, 4] == 2)


def test_an_empty_prediction_is_a_failure_and_is_named(run, tmp_path, reference):
    path = save_nifti(tmp_path / "nothing.nii.gz", np.zeros_like(MASKS))
    for objects in ("together", "apart"):
        arguments = ["-p", path, "-m", reference, "--objects", objects]
        folder, done = score(run, tmp_path, *arguments, name=objects)
        assert "the predicted masks are empty" in done.stderr
        for table in folder.rglob("raw_data.csv"):
            assert pd.read_csv(table)["dice"].dropna().tolist() == [0, 0, 0, 0]


def test_results_and_masks_of_another_run_are_not_replaced(run, tmp_path):
    image = save_nifti(tmp_path / "image_a.nii.gz", IMAGE)
    masks = save_nifti(tmp_path / "masks_a.nii.gz", MASKS)
    pair = ["-i", image, "-m", masks, "--output_folder", tmp_path / "out"]
    run("process_image.py", *pair, "--model", "threshold", "--save_masks")
    predictions = tmp_path / "out" / "image_a" / "predicted_masks.nii.gz"
    before = {path: path.read_bytes() for path in predictions.parent.iterdir()}
    for name in ([], ["--name", "image_a"]):
        done = run("score_masks.py", *pair, "-p", predictions, *name, "--overwrite", "--report")
        assert_refused(done, "holds results of another run; give another --name")
    assert {path: path.read_bytes() for path in predictions.parent.iterdir()} == before
    # Without its image the slices of the run may have another order.
    turned = save_nifti(tmp_path / "masks_turned.nii.gz", MASKS[:, :, ::-1], TURNED)
    done = run("score_masks.py", "-m", turned, "-p", predictions, "--output_folder", tmp_path / "o")
    assert_refused(done, "give the image of its run with -i")


# The slices in the other order, at the same places.
TURNED = np.array([[-0.7, 0, 0, 0], [0, -0.8, 0, 0], [0, 0, -5, 20], [0, 0, 0, 1.0]])
