"""The main script as users run it, with full-size ViT-B weights from a fixed seed."""

import gzip
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import assert_refused, chest, save_nifti
from segment_anything import SamPredictor, sam_model_registry

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.study.metrics import dice, jaccard

SCRIPT = "process_image.py"
IMAGE, MASKS = chest(slices=2)


@pytest.fixture(scope="session")
def vit_b(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoints") / "vit_b_seed_0.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture
def volumes(tmp_path):
    """Two slices, one with lung, as NumPy arrays in `working_data/`; returns the folder."""
    for kind, array in (("image", IMAGE), ("masks", MASKS)):
        nifti = save_nifti(tmp_path / f"{kind}.nii.gz", array)
        write_numpy(read_nifti(nifti), tmp_path / "working_data" / f"{kind}_a.npy")
    return tmp_path / "working_data"


@pytest.fixture(scope="session")
def reference_row(vit_b) -> list[float]:
    """The columns from `jaccard` on in the row of slice 1, computed with segment-anything alone."""
    sam = sam_model_registry["vit_b"]()
    sam.load_state_dict(torch.load(vit_b, weights_only=True))
    predictor = SamPredictor(sam.eval())
    predictor.set_image(slice_to_rgb(IMAGE[:, :, 1], LUNG_WINDOW))
    reference = MASKS[:, :, 1] > 0
    prompts = make_prompts(MASKS[:, :, 1], PromptProtocol())
    predicted, score, _ = predictor.predict(
        point_coords=prompts.points_rc[:, ::-1],
        point_labels=prompts.labels,
        box=prompts.box_rc[[1, 0, 3, 2]],
        multimask_output=False,
    )
    predicted = predicted[0]
    areas = [np.count_nonzero(reference), np.count_nonzero(predicted)]
    return [jaccard(predicted, reference), dice(predicted, reference), float(score[0]), *areas]


def test_a_volume_between_two_broken_ones(run, volumes, vit_b, reference_row, tmp_path):
    broken = [volumes / "image_broken.npy", volumes / "image_missing.npy"]
    broken[0].write_bytes((volumes / "image_a.npy").read_bytes()[:-1])
    masks = volumes / "masks_a.npy"
    done = run(
        SCRIPT,
        *("-i", broken[0], volumes / "image_a.npy", broken[1], "-m", masks, masks, masks),
        *("-d", "--output_folder", tmp_path / "out" / "results"),
        *("--model", "vit_b", "--checkpoint", vit_b, "--device", "cpu"),
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    # Missing files are reported first.
    for error, path in zip(errors, reversed(broken), strict=True):
        assert str(path) in error

    results = tmp_path / "out" / "results" / "image_a"
    assert [path.name for path in results.parent.iterdir()] == ["image_a"]
    row = pd.read_csv(results / "raw_data.csv").iloc[1]
    assert row.tolist() == pytest.approx([1, *reference_row, 5], rel=1e-5)
    run_record = json.loads((results / "run.json").read_text())
    assert run_record["other_options"]["checkpoint"] == str(vit_b)
    assert (results / "debug" / "slice_1_prediction.png").stat().st_size > 10_000
    assert (results / "debug" / "slice_1_prompt.yml").exists()


def test_a_report_is_written_only_when_all_volumes_are_done(run, volumes, tmp_path):
    pair = ("-i", volumes / "image_a.npy", "-m", volumes / "masks_a.npy")
    study = (SCRIPT, *pair, "--model", "compact", "--device", "cpu", "--report")
    done = run(*study, "--output_folder", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = tmp_path / "out" / "report.html"
    assert done.stdout.splitlines()[-1] == str(report)
    assert (tmp_path / "out" / "joint_results.csv").exists()
    report.unlink()
    # The folder holds another run.
    assert_refused(run(*study, "--window", "none", "--output_folder", tmp_path / "out"), "--window")
    assert not report.exists()


def test_several_protocols_and_kept_embeddings(run, volumes, vit_b, reference_row, tmp_path):
    def study(folder):
        done = run(
            SCRIPT,
            *("-i", volumes / "image_a.npy", "-m", volumes / "masks_a.npy"),
            *("--model", "vit_b", "--checkpoint", vit_b, "--device", "cpu"),
            *("--prompts", "paper,no_box,centroid_points", "--batch_size", 2),
            *("--embeddings_folder", tmp_path / "embeddings", "--embeddings_precision", "float32"),
            *("--output_folder", folder),
        )
        assert done.returncode == 0, done.stderr
        return {path.parent.parent.name: path.read_bytes() for path in folder.rglob("raw_data.csv")}

    first = study(tmp_path / "first")
    row = pd.read_csv(tmp_path / "first" / "paper" / "image_a" / "raw_data.csv").iloc[1]
    assert row.tolist() == pytest.approx([1, *reference_row, 5], rel=1e-4)
    assert first.keys() == {"paper", "no_box", "centroid_points"}
    assert len(set(first.values())) == 3
    (kept,) = (tmp_path / "embeddings" / "vit_b" / "image_a").iterdir()
    before = kept.stat().st_mtime_ns
    assert study(tmp_path / "second") == first
    assert kept.stat().st_mtime_ns == before


def test_the_metrics_of_one_slice_are_printed(run, volumes, vit_b, reference_row):
    done = run(
        SCRIPT,
        *("--image_file_path", volumes / "image_a.npy"),
        *("--masks_file_path", volumes / "masks_a.npy"),
        *("--slice", 1, "--model", "vit_b", "--checkpoint", vit_b, "--device", "cpu"),
    )
    index, score, *_ = reference_row
    assert done.stdout == f"Jaccard index: {index:.4f}\nDice score: {score:.4f}\n"
    assert done.stderr == ""
    assert done.returncode == 0
    assert not (volumes / "results").exists()


def test_a_slice_without_lung_is_not_an_error(run, volumes):
    done = run(SCRIPT, "-i", volumes / "image_a.npy", "-m", volumes / "masks_a.npy", "-s", 0)
    assert "no lung" in done.stdout
    assert done.returncode == 0


def test_a_dry_run_checks_everything_and_writes_nothing(run, volumes):
    before = sorted(volumes.iterdir())
    done = run(
        SCRIPT,
        *("-i", volumes / "image_a.npy", "-m", volumes / "masks_a.npy", "-n"),
        *("--window", "-600,1600", "--no_box", "--model", "compact"),
    )
    assert done.returncode == 0, done.stderr
    assert " -600,1600 " in done.stdout
    assert "1 slice of 1 volume to segment with compact" in done.stdout
    assert sorted(volumes.iterdir()) == before


def test_every_kind_of_bad_input_is_one_line_and_writes_nothing(run, tmp_path):
    def nifti(name: str, array: np.ndarray):
        return save_nifti(tmp_path / name, array)

    def damaged(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    def numpy(name: str, array: np.ndarray):
        np.save(tmp_path / name, array)
        return tmp_path / name

    image, masks = nifti("image.nii.gz", IMAGE), nifti("masks.nii.gz", MASKS)
    content = image.read_bytes()
    not_finite = IMAGE.astype(np.float32)
    not_finite[0, 0, 0] = np.nan
    rgb = np.zeros(IMAGE.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    pairs = [
        (damaged("text.nii", b"slice,jaccard,dice\n" * 40), masks),
        (damaged("words.npy", b"slice,jaccard,dice\n" * 40), masks),
        (damaged("scan.dcm", b"\0" * 128 + b"DICM"), masks),
        (damaged("short.nii.gz", content[: len(content) // 2]), masks),
        (damaged("broken.nii.gz", content[:60] + b"\0" * 40 + content[100:]), masks),
        (damaged("cut.nii", gzip.decompress(content)[:-1]), masks),
        (damaged("pickle.npy", pickle.dumps([1, 2])), masks),
        (numpy("objects.npy", np.full(IMAGE.shape, None)), masks),
        (nifti("flat.nii", IMAGE[:, :, 0]), masks),
        (nifti("series.nii", np.stack([IMAGE, IMAGE], axis=3)), masks),
        (nifti("complex.nii", IMAGE.astype(np.complex64)), masks),
        (nifti("rgb.nii", rgb), masks),
        (nifti("nan.nii", not_finite), masks),
        (nifti("either.nii", np.abs(IMAGE)), masks),
        (nifti("other_shape.nii", IMAGE[1:]), masks),
        (image, nifti("fractions.nii", MASKS * np.float32(0.9))),
        (nifti("same.nii", IMAGE), nifti("background.nii", np.zeros_like(MASKS))),
    ]
    before = sorted(tmp_path.iterdir())
    done = run(SCRIPT, "-i", *(i for i, _ in pairs), "-m", *(m for _, m in pairs))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(pairs)
    for line, pair in zip(lines, pairs, strict=True):
        assert line.startswith("error: ")
        assert any(str(path) in line for path in pair)
    assert sorted(tmp_path.iterdir()) == before

    rehearsed = run(SCRIPT, "-n", "-i", *(i for i, _ in pairs), "-m", *(m for _, m in pairs))
    assert rehearsed.returncode == 1
    table, _, faults = rehearsed.stdout.partition("\nfaults:\n")
    assert len(table.splitlines()) == 1 + len(pairs)
    for line in lines:
        assert line.removeprefix("error: ") in faults
    assert (
        rehearsed.stderr == f"error: {len(pairs)} of {len(pairs)} volumes have faults; see above\n"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_dataset_file_and_options_for_reading_it(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_nifti(tmp_path / name / "scan.nii.gz", IMAGE)
        save_nifti(tmp_path / name / "organs.nii.gz", MASKS * 10)
    file = tmp_path / "dataset.yml"
    file.write_text('images: "{case}/scan.nii.gz"\nmasks: "{case}/organs.nii.gz"\n')
    study = ("--dataset", file, "--cases", "b", "--model", "compact", "--device", "cpu")
    done = run(SCRIPT, *study, "--labels", "left=10", "right=20", "--report")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "results" / "b" / "run.json").read_text())
    assert record["reading"]["objects"] == {"left": [10], "right": [20]}
    assert record["masks"][0]["file"] == str(tmp_path / "b" / "organs.nii.gz")
    assert (tmp_path / "results" / "report.html").exists()
    assert not (tmp_path / "results" / "a").exists()
    # The labels decide the results.
    assert_refused(run(SCRIPT, *study), "holds another run (--labels {'left': [10], 'right': [20]}")


def test_bad_options_are_one_line_and_write_nothing(run, volumes, tmp_path):
    pair = ("-i", volumes / "image_a.npy", "-m", volumes / "masks_a.npy")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert_refused(run(SCRIPT, *pair, "-s", 2), "image_a.npy", "give 0 to 1")
    assert_refused(run(SCRIPT, *pair, "--output_folder", tmp_path / "file" / "out"), "file")
    assert_refused(run(SCRIPT, *pair, "--window", "wide"), "--window wide")
    assert_refused(run(SCRIPT, *pair, "--batch_size", 0), "--batch_size 0")
    assert_refused(run(SCRIPT, *pair, "--batch_size", "all"), "--batch_size all")
    assert_refused(run(SCRIPT, *pair, "--metrics", "dice,hd59"), "unknown metric 'hd59'")
    assert_refused(run(SCRIPT, *pair, "--tolerance_mm", -1), "--tolerance_mm -1")
    assert_refused(run(SCRIPT, *pair, "--tolerance_mm", "near"), "--tolerance_mm near")
    assert_refused(run(SCRIPT, *pair, "--prompts", "paper,none"), "unknown protocol 'none'")
    assert_refused(run(SCRIPT, *pair, "--prompts", "paper", "--no_box"), "--prompts")
    assert_refused(run(SCRIPT, *pair, "--windw", "lung"), "did you mean --window?")
    assert_refused(run(SCRIPT, *pair, "--slice", 1, "--save_masks"), "--save_masks")
    assert_refused(run(SCRIPT, *pair, "--threads", 0), "--threads 0")
    assert_refused(run(SCRIPT, *pair, "--embeddings_folder", tmp_path / "file" / "kept"), "file")
    assert_refused(run(SCRIPT, *pair, "--checkpoint", tmp_path / "none.pth"), "none.pth")
    images = ("-i", volumes / "image_a.npy", volumes / "other.npy")
    assert_refused(run(SCRIPT, *pair[2:], *images), "2 images but 1 masks")
    assert_refused(run(SCRIPT, *pair[:2], "-m", volumes / "none.npy"), "none.npy: no such file")
    assert_refused(run(SCRIPT, *pair, "--labels", "1", "1"), "1 is given twice")
    assert_refused(run(SCRIPT, *pair, "--allow", "all"), "unknown fault 'all'")
    assert_refused(run(SCRIPT, *pair, "--spacing_mm", "1"), "--spacing_mm 1: give ROWS,COLUMNS")
    assert_refused(run(SCRIPT, *pair, "--align", "nearest"), "--align")
    assert_refused(run(SCRIPT, *pair, "--dataset", "a.yml"), "leave out -i and -m")
    assert_refused(run(SCRIPT, "--dataset", tmp_path / "a.yml"), "a.yml")
    assert_refused(run(SCRIPT), "give images with -i and their masks with -m, or --dataset")
    if not torch.cuda.is_available():
        assert_refused(run(SCRIPT, *pair, "--device", "cuda"), "--device cuda")
    assert sorted(tmp_path.rglob("*")) == before
