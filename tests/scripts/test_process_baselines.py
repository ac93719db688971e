"""The baselines through process_image.py as users run them, without weights."""

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_refused, chest, save_nifti
from faults import Child, contents, finish

from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.study import process
from sam_lungs.study.layout import RAW_DATA_NAME, UNFINISHED_FOLDER
from sam_lungs.study.options import Options
from sam_lungs.study.process import new_record
from sam_lungs.study.results import read_raw_data
from sam_lungs.study.setup import identify_model, prepare
from sam_lungs.study.unfinished import LOG_NAME
from sam_lungs.utils.errors import InputError

SCRIPT = "process_image.py"
STUDY = ("-i", "image_a.nii.gz", "-m", "masks_a.nii.gz", "--device", "cpu")
IMAGE, MASKS = chest(slices=4)
WITH_BOX = [name for name, protocol in PROTOCOLS.items() if protocol.box]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a volume, in which all voxels below -400 HU in the box are lung."""
    save_nifti(tmp_path / "image_a.nii.gz", IMAGE)
    save_nifti(tmp_path / "masks_a.nii.gz", MASKS)
    return tmp_path


def table(folder: Path) -> pd.DataFrame:
    """The rows of the slices with lung."""
    rows = read_raw_data(folder / "image_a" / RAW_DATA_NAME)
    return rows[rows["lung_pixels"] > 0]


def dice_of_the_box(index: int) -> float:
    rows, columns = np.nonzero(MASKS[:, :, index])
    area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    return 2 * len(rows) / (len(rows) + area)


@pytest.mark.parametrize(("model", "names"), [("box", WITH_BOX), ("threshold", PROTOCOLS)])
@pytest.mark.parametrize("objects", ["together", "apart"])
def test_every_protocol(folder, model, names, objects):
    prompts = ("--prompts", ",".join(names), "--objects", objects)
    finish(folder, SCRIPT, *STUDY, "--model", model, *prompts, "--output_folder", "out")
    for name in names:
        rows = table(folder / "out" / name)
        assert rows["score"].isna().all()
        if model == "threshold":
            assert rows["dice"].tolist() == [1, 1, 1]
        elif objects == "together":
            assert rows["dice"].tolist() == [dice_of_the_box(index) for index in (1, 2, 3)]
        else:
            assert (rows["dice"] > [dice_of_the_box(index) for index in (1, 2, 3)]).all()


def test_beside_a_model(folder):
    several = (
        *STUDY,
        "--model",
        "compact,box,threshold",
        "--precision",
        "bfloat16",
        "--allow_slow",
    )
    several = (*several, "--mask_choice", "best_score", "--embeddings_folder", "kept")
    rehearsed = finish(folder, SCRIPT, *several, "--output_folder", "out", "--dry_run")
    for model in ("compact", "box", "threshold"):
        line = next(line for line in rehearsed if f"segment with {model}: about 0:00:0" in line)
        assert line.startswith("3 slices of 1 volume ")
    finish(folder, SCRIPT, *several, "--output_folder", "out")
    # Only the model has embeddings.
    assert [path.name for path in (folder / "kept").iterdir()] == ["compact"]
    assert (table(folder / "out" / "threshold")["dice"] == 1).all()
    records = {
        name: json.loads((folder / "out" / name / "image_a" / "run.json").read_text())
        for name in ("compact", "box", "threshold")
    }
    for name, record in records.items():
        assert record["segmenter"]["model"] == name
        assert record["environment"]["device"].startswith("cpu")
    # The baseline alone gives the same table.
    finish(folder, SCRIPT, *STUDY, "--model", "threshold", "--output_folder", "alone")
    pd.testing.assert_frame_equal(table(folder / "alone"), table(folder / "out" / "threshold"))


def test_another_baseline_does_not_skip_or_mix_results(folder, run):
    finish(folder, SCRIPT, *STUDY, "--model", "box", "--output_folder", "out")
    assert_refused(
        run(SCRIPT, *STUDY, "--model", "threshold", "--output_folder", "out"),
        "holds another run (preprocessing none; the slice has no effect there",
    )


def test_a_killed_run_resumes(folder):
    run = (*STUDY, "--model", "threshold", "--save_masks")
    finish(folder, SCRIPT, *run, "--output_folder", "expected")
    killed = folder / "killed.py"
    killed.write_text(
        "import os, runpy\nfrom sam_lungs.segmenters.baselines import Threshold\n"
        "decode, decoded = Threshold.decode, []\n"
        "def decode_one(*arguments):\n"
        "    decoded.append(1)\n"
        f"    if len(decoded) == 3: os.kill(os.getpid(), {signal.SIGKILL:d})\n"
        "    return decode(*arguments)\n"
        "Threshold.decode = decode_one\n"
        f"runpy.run_path({str(ROOT / SCRIPT)!r}, run_name='__main__')\n"
    )
    child = Child(folder, killed, *run, "--output_folder", "out")
    assert child.wait() == -signal.SIGKILL
    log = folder / "out" / "image_a" / UNFINISHED_FOLDER / LOG_NAME
    kept = [json.loads(line) for line in log.read_bytes().splitlines()[1:]]
    assert 0 < len(kept) < 3
    assert all(np.isnan(line["slice"]["score"]) for line in kept)
    seconds = [line["seconds"] for line in kept]
    finish(folder, SCRIPT, *run, "--output_folder", "out")
    there, expected = (contents(folder / name) for name in ("out", "expected"))
    for path in expected:
        if not path.endswith("run.json"):
            assert there[path] == expected[path]
    record = json.loads((folder / "out/image_a/run.json").read_text(), parse_constant=pytest.fail)
    assert record["seconds"] >= round(sum(seconds), 3)


def test_a_picture_is_separated_by_otsu(folder):
    grey = np.where(MASKS[:, :, 3] > 0, 60, 180).astype(np.uint8)
    grey[:3] = 5  # dark, outside of the box
    cv2.imwrite(str(folder / "x_ray.png"), grey)
    cv2.imwrite(str(folder / "lungs.png"), (MASKS[:, :, 3] > 0) * np.uint8(255))
    picture = ("-i", "x_ray.png", "-m", "lungs.png", "--model", "box,threshold")
    lines = finish(folder, SCRIPT, *picture, "--slice", 0, "--points", "contours")
    assert lines[2] == f"Dice score: {dice_of_the_box(3):.4f}"
    assert lines[3:6] == ["threshold:", "Jaccard index: 1.0000", "Dice score: 1.0000"]
    # Both lungs are one label, so the paper's prompt has a point in one of them only.
    lines = finish(folder, SCRIPT, *picture, "--slice", 0)
    assert lines[3:5] == ["threshold:", "Jaccard index: 0.5000"]


@pytest.mark.parametrize("window", ["lung", "374,1500", "none"])
def test_other_values_and_windows(folder, window):
    values = IMAGE + np.int16(1024 if window == "374,1500" else 0)
    save_nifti(folder / "image_a.nii.gz", values)
    finish(folder, SCRIPT, *STUDY, "--model", "threshold", "--window", window)
    assert table(folder / "results")["dice"].tolist() == [1, 1, 1]


def options(model: str, **given) -> Options:
    return Options([Path("image.npy")], [Path("masks.npy")], model=model, device="cpu", **given)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("box", {"box": False}, "box: needs a box to fill; leave --no_box out"),
        ("compact,box", {"prompts": ("paper", "points")}, "--prompts with a box, such as paper"),
        ("box", {"mask_choice": "token0"}, "--mask_choice has no effect with --model box"),
        ("box,threshold", {"precision": "float16"}, "no effect with --model box,threshold; leave"),
        ("threshold", {"embeddings_folder": Path("kept")}, "--embeddings_folder has no effect"),
        ("threshold", {"preprocessing": "native"}, "leave out --preprocessing native"),
        ("threshold", {"checkpoint": Path("sam.pth")}, "leave out --checkpoint"),
        (
            "compact,threshold",
            {"metrics": ("jaccard", "dice", "one_click"), "prompts": ("points",)}
            | {"objects": "apart"},
            "--metrics one_click needs three masks per prompt, and threshold predicts one",
        ),
    ],
)
def test_options_that_a_baseline_cannot_follow(model, given, message):
    with pytest.raises(InputError) as refused:
        prepare(options(model, **given))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_options_of_models_are_accepted_beside_one():
    given = {"precision": "float16", "mask_choice": "token0", "embeddings_folder": Path("kept")}
    prepare(options("compact,box,threshold", **given))
    prepare(options("compact,threshold", box=False))
    prepare(options("box", prompts=("paper", "box_only")))


@pytest.mark.parametrize(("model", "device"), [("threshold", "cpu"), ("compact", "cuda")])
def test_the_record_names_the_device_that_computes(monkeypatch, model, device):
    monkeypatch.setattr(process, "environment", lambda name: {"device": name})
    asked = Options([Path("image.npy")], [Path("masks.npy")], model=model, device="cuda")
    (files,) = asked.case_files
    record = new_record(files, {}, [], identify_model(asked), asked, PROTOCOLS["paper"])
    assert record.environment == {"device": device}
