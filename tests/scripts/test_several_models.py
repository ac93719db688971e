"""Models of transformers through process_image.py as users run it, with small random weights."""

import json
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, assert_refused, chest, save_nifti
from faults import Child, contents, finish

from sam_lungs.segmenters import hub
from sam_lungs.segmenters.checkpoints import CHECKPOINTS, CHECKPOINTS_FOLDER, load_sam
from sam_lungs.study.layout import UNFINISHED_FOLDER
from sam_lungs.study.results import read_raw_data
from sam_lungs.summary.compare import read_runs
from sam_lungs.synthetic.phantom import phantom_volume
from sam_lungs.utils.files import sha256_of

pytest.importorskip("transformers")

from hf_models import as_transformers, build

SCRIPT = "process_image.py"
REVISION = "0123456789abcdef0123456789abcdef01234567"
TINY = f"hub:owner/sam2@{REVISION}"
TINY_FOLDER = f"owner--sam2@{REVISION}"
STUDY = ("-i", "image_a.nii.gz", "-m", "masks_a.nii.gz", "--device", "cpu")
SLICES = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder of checkpoints with `compact`, a small fetched SAM 2.1, and a small MedSAM."""
    folder = tmp_path_factory.mktemp("checkpoints")
    name = CHECKPOINTS["compact"].file_name
    (folder / name).symlink_to(CHECKPOINTS_FOLDER / name)
    build("sam2").save_pretrained(folder / TINY_FOLDER)
    hashes = {path.name: sha256_of(path) for path in (folder / TINY_FOLDER).iterdir()}
    (folder / TINY_FOLDER / hub.RECORD).write_text(json.dumps({"sha256": hashes}))
    build("medsam").save_pretrained(folder / "own_medsam")
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder where the script runs, with a volume."""
    for kind, array in zip(("image", "masks"), chest(slices=SLICES), strict=True):
        save_nifti(tmp_path / f"{kind}_a.nii.gz", array)
    return tmp_path


@pytest.fixture
def script(models, folder) -> Path:
    """process_image.py, with the folder of checkpoints of these tests."""
    path = folder / "process_image.py"
    path.write_text(
        "import runpy\nfrom pathlib import Path\nfrom sam_lungs.segmenters import checkpoints\n"
        f"checkpoints.CHECKPOINTS_FOLDER = Path({str(models)!r})\n"
        "checkpoints.fetch.__defaults__ = (checkpoints.CHECKPOINTS_FOLDER, None)\n"
        f"runpy.run_path({str(ROOT / SCRIPT)!r}, run_name='__main__')\n"
    )
    return path


def table(folder: Path) -> pd.DataFrame:
    return read_raw_data(folder / "image_a" / "raw_data.csv")


def test_two_models_in_one_command(script, folder):
    both = (*STUDY, "--model", f"compact,{TINY}", "--embeddings_folder", "kept")
    lines = finish(folder, script, *both, "--output_folder", "both", "--report")
    assert str(folder / "both" / "compact" / "report.html") in lines
    for name in ("compact", TINY_FOLDER):
        assert len(list((folder / "kept" / name / "image_a").iterdir())) == SLICES - 1
    assert list(read_runs([folder / "both" / name for name in ("compact", TINY_FOLDER)]))
    # The model alone gives the same results, in the folders without its name.
    finish(folder, script, *STUDY, "--model", TINY, "--output_folder", "alone")
    pd.testing.assert_frame_equal(table(folder / "alone"), table(folder / "both" / TINY_FOLDER))
    record = json.loads((folder / "both" / TINY_FOLDER / "image_a" / "run.json").read_text())
    segmenter = record["segmenter"]
    assert (segmenter["model"], segmenter["family"]) == (TINY, "sam2")
    assert (segmenter["provenance"], segmenter["licence"]) == ("seen", None)
    assert segmenter["weights"].keys() == {"config.json", "model.safetensors"}
    assert "transformers" in segmenter["packages"]
    assert record["options"]["mask_choice"] == "model"
    page = (folder / "both" / "compact" / "report.html").read_text("utf-8")
    assert TINY in page

    rehearsed = finish(folder, script, *both, "--output_folder", "new", "--dry_run")
    for model in ("compact", TINY):
        assert any(f"slices of 1 volume to segment with {model}: about" in x for x in rehearsed)
    printed = finish(folder, script, *both, "--slice", 3)
    assert printed[0] == "compact:"
    assert printed[3] == f"{TINY_FOLDER}:"
    assert len([line for line in printed if line.startswith("Dice score: ")]) == 2


def test_a_run_that_is_killed_at_the_second_model_resumes_there(script, folder):
    run = (*STUDY, "--model", f"compact,{TINY}", "--prompts", "paper,box_only")
    finish(folder, script, *run, "--output_folder", "expected")
    killed = folder / "killed.py"
    killed.write_text(
        "import os\nfrom sam_lungs.segmenters.hf import TransformersSegmenter\n"
        "encode, encoded = TransformersSegmenter.encode, []\n"
        "def encode_one(*arguments):\n"
        "    encoded.append(1)\n"
        f"    if len(encoded) == 3: os.kill(os.getpid(), {signal.SIGKILL:d})\n"
        "    return encode(*arguments)\n"
        "TransformersSegmenter.encode = encode_one\n" + script.read_text()
    )
    child = Child(folder, killed, *run, "--output_folder", "out")
    assert child.wait() == -signal.SIGKILL
    assert (folder / "out" / TINY_FOLDER / "paper" / "image_a" / UNFINISHED_FOLDER).exists()
    first = folder / "out" / "compact" / "paper" / "image_a" / "run.json"
    before = first.stat().st_mtime_ns
    lines = finish(folder, script, *run, "--output_folder", "out")
    assert "image_a: finished before, skipped" in lines[1]
    assert first.stat().st_mtime_ns == before
    there, expected = (
        {path: content for path, content in contents(folder / name).items() if "csv" in path}
        for name in ("out", "expected")
    )
    assert there == expected
    assert len(there) == 2 * 2 * 2


def test_medsam_takes_a_box_only(models, folder):
    run = (*STUDY, "--model", "medsam", "--model_folder", models / "own_medsam", "--debug")
    before = sorted(folder.rglob("*"))
    refused = Child(folder, SCRIPT, *run, "--prompts", "box_only,paper")
    assert refused.wait() == 1
    message = "error: medsam: accepts box prompts only, not points and negative; use --prompts"
    assert refused.output_lines() == [f"{message} box_only"]
    assert sorted(folder.rglob("*")) == before
    finish(folder, SCRIPT, *run, "--prompts", "box_only")
    finish(folder, SCRIPT, *run, "--points", "none", "--negative", "none", "--output_folder", "b")
    pd.testing.assert_frame_equal(table(folder / "results" / "box_only"), table(folder / "b"))
    prompts = yaml.safe_load((folder / "b/image_a/debug/slice_3_prompt.yml").read_text())
    assert prompts["points"] == []
    assert prompts["box"].keys() == {"row_min", "column_min", "row_max", "column_max"}
    record = json.loads((folder / "b" / "image_a" / "run.json").read_text())
    assert (record["segmenter"]["family"], record["segmenter"]["model"]) == ("medsam", "medsam")
    assert record["segmenter"]["provenance"] == "given"


def test_the_window_of_the_authors(models, folder):
    run = (*STUDY, "--model", "medsam", "--model_folder", models / "own_medsam", "--save_masks")
    run = (*run, "--prompts", "box_only", "--embeddings_folder", "kept")
    native = (*run, "--preprocessing", "native")
    common = Child(folder, SCRIPT, *run, "--output_folder", "common")
    assert common.wait() == 0
    finish(folder, SCRIPT, *native, "--output_folder", "native", "--report")
    # The same window for all models gives the same numbers.
    finish(folder, SCRIPT, *run, "--output_folder", "same", "--window", "-160,1500")
    tables = {name: table(folder / name / "box_only") for name in ("common", "native", "same")}
    pd.testing.assert_frame_equal(tables["native"], tables["same"], check_exact=True)
    assert not tables["native"].equals(tables["common"])
    record = json.loads((folder / "native/box_only/image_a/run.json").read_text())
    assert record["window_hu"] == [-910, 590]
    assert record["options"]["preprocessing"] == "native"
    assert record["segmenter"]["preprocessing"].startswith("native slice; squashed")
    page = (folder / "native/box_only/report.html").read_text("utf-8")
    assert "native slice; squashed" in page
    assert "-910 to 590 HU, of the model&#39;s authors" in page
    lines = finish(folder, SCRIPT, *native, "--output_folder", "native")
    assert "image_a: finished before, skipped" in lines
    assert any("-160,1500" in line for line in finish(folder, SCRIPT, *native, "--dry_run"))
    refused = Child(folder, SCRIPT, *native, "--output_folder", "common")
    assert refused.wait() == 1
    assert "--preprocessing common there, native now" in refused.streams()[1]


def test_the_window_of_the_authors_is_refused_where_there_is_none(run, models, folder):
    native = (*STUDY, "--preprocessing", "native", "--prompts", "box_only")
    before = sorted(folder.rglob("*"))
    assert_refused(run(SCRIPT, *native), "vit_l: its authors have no window for CT")
    assert_refused(run(SCRIPT, *native, "--model", "medsam,compact"), "compact: its authors have")
    medsam = (SCRIPT, *native, "--model", "medsam", "--model_folder", models / "own_medsam")
    message = "image_a.nii.gz: is not windowed as a CT of lungs in Hounsfield units"
    for window in ("none", "40,2000"):
        assert_refused(run(*medsam, "--window", window), message)
    grey = np.random.default_rng(0).integers(0, 256, (40, 56, SLICES), dtype=np.uint8)
    save_nifti(folder / "image_a.nii.gz", grey)
    assert_refused(run(*medsam), message)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_without_a_name(models, folder):
    run = (*STUDY, "--model_folder", models / TINY_FOLDER, "--mask_choice", "token0")
    finish(folder, SCRIPT, *run, "--embeddings_folder", "kept")
    record = json.loads((folder / "results" / "image_a" / "run.json").read_text())
    assert record["segmenter"]["model"] == TINY_FOLDER
    assert record["segmenter"]["mask_choice"] == "token 0"
    assert [path.name for path in (folder / "kept").iterdir()] == [TINY_FOLDER]
    # The choice of a mask decides the results.
    refused = Child(folder, SCRIPT, *run[:-2])
    assert refused.wait() == 1
    assert "holds another run (--mask_choice token0 there, model now)" in refused.streams()[1]


def test_objects_apart_are_united(folder):
    run = (*STUDY, "--model", "compact", "--prompts", "box_only", "--save_masks", "--debug")
    run = (*run, "--embeddings_folder", "kept", "--draw", "points,box")
    finish(folder, SCRIPT, *run, "--objects", "apart", "--output_folder", "apart")
    alone = []
    for label in (1, 2):
        output = ("--labels", label, "--output_folder", f"only_{label}")
        finish(folder, SCRIPT, *run, *output)
        alone.append(folder / f"only_{label}" / "box_only" / "image_a")
    apart = folder / "apart" / "box_only" / "image_a"
    masks, left, right = (
        np.asarray(load(path / "predicted_masks.nii.gz")) for path in (apart, *alone)
    )
    np.testing.assert_array_equal(masks, left | right)
    scores = [read_raw_data(path / "raw_data.csv")["score"] for path in (apart, *alone)]
    pd.testing.assert_series_equal(scores[0], (scores[1] + scores[2]) / 2)
    objects = yaml.safe_load((apart / "debug" / "slice_3_prompt.yml").read_text())["objects"]
    for each, path in zip(objects, alone, strict=True):
        one = yaml.safe_load((path / "debug" / "slice_3_prompt.yml").read_text())
        assert each == {"points": one["points"], "box": one["box"]}


def load(path: Path) -> np.ndarray:
    import nibabel

    return nibabel.load(path).dataobj


def test_a_missing_package_is_reported_before_anything_is_computed(script, folder):
    script.write_text(
        "from sam_lungs.segmenters import hub\nhub.find_spec = lambda package: None\n"
        + script.read_text()
    )
    before = sorted(folder.rglob("*"))
    child = Child(folder, script, *STUDY, "--model", f"compact,{TINY}")
    assert child.wait() == 1
    message = f"error: {TINY}: needs transformers; install it with: pip install '.[models]'"
    assert child.output_lines() == [message]
    assert sorted(folder.rglob("*")) == before


def test_options_of_models_that_do_not_fit_together(run, folder, models):
    study = (SCRIPT, *STUDY)
    two = (*study, "--model", "vit_b,medsam")
    assert_refused(run(*two, "--checkpoint", "a.pth"), "--checkpoint is for one model")
    assert_refused(run(*two, "--model_folder", models), "--model_folder is for one model")
    assert_refused(run(*study, "--model", "vit_b,vit_b"), "--model vit_b,vit_b: a model is given")
    assert_refused(run(*study, "--model", "vit_b,"), "--model vit_b,: ends with a comma")
    assert_refused(run(*study, "--model", "hub:a/b@main"), "REVISION is a commit of 40")
    assert_refused(run(*study, "--model_folder", "none"), "none: no such folder")
    assert_refused(run(*study, "--points", "none", "--no_box"), "--points none needs the box")


def test_compact_through_transformers_gives_the_same_tables(folder):
    as_transformers(
        load_sam("compact", CHECKPOINTS_FOLDER / CHECKPOINTS["compact"].file_name)
    ).save_pretrained(folder / "compact_hf")
    image, masks, affine = phantom_volume(11, 1, 9, "hounsfield", (96, 96))
    save_nifti(folder / "image_a.nii.gz", image, affine)
    save_nifti(folder / "masks_a.nii.gz", masks, affine)
    run = (*STUDY, "--prompts", "paper,points,contours_no_box,box_only", "--threads", 1)
    finish(folder, SCRIPT, *run, "--model", "compact", "--output_folder", "own")
    finish(folder, SCRIPT, *run, "--model_folder", "compact_hf", "--output_folder", "hf")
    for protocol in ("paper", "points", "contours_no_box", "box_only"):
        own, hf = table(folder / "own" / protocol), table(folder / "hf" / protocol)
        np.testing.assert_allclose(own.pop("score"), hf.pop("score"), atol=1e-5)
        pd.testing.assert_frame_equal(own, hf)
