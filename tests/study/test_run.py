"""Whole studies, from files to files, with a tiny SAM in place of the real one."""

import gc
import os
import shutil
import sys
import weakref
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters import checkpoints, registry
from sam_lungs.segmenters import devices as devices_module
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study import process
from sam_lungs.study import run as study_run
from sam_lungs.study.metrics import CLICK_METRICS, dice, jaccard
from sam_lungs.study.options import Options
from sam_lungs.study.results import read_raw_data
from sam_lungs.study.run import run_study
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.surfaces import surface_agreement
from sam_lungs.utils import progress, provenance
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

IMAGE, MASKS = chest()


@pytest.fixture
def loaded() -> list[str]:
    """The models that were loaded, in order."""
    return []


@pytest.fixture
def weights(monkeypatch, tmp_path_factory, loaded):
    """A file of weights that is loaded as a tiny SAM."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    path.write_bytes(b"weights")

    def load_sam(name, given):
        assert given == path
        loaded.append(name)
        return tiny_sam()

    monkeypatch.setattr(checkpoints, "load_sam", load_sam)
    registry.identify.cache_clear()
    return path


@pytest.fixture
def pair(tmp_path):
    """An image and its masks, three slices of which the first has no lung."""
    return (
        [save_nifti(tmp_path / "image_a.nii.gz", IMAGE)],
        [save_nifti(tmp_path / "masks_a.nii.gz", MASKS)],
    )


def study(pair, weights, **options) -> int:
    given = {"checkpoint": weights, "device": "cpu"} | options
    return run_study(Options(*pair, **given))


def visible(folder: Path) -> list[str]:
    """The names of a folder's files, without the hidden lock."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def record(tmp_path, name: str = "image_a") -> RunRecord:
    return RunRecord.read(tmp_path / "results" / name)


def test_raw_data_has_a_row_per_slice_with_the_metrics_of_its_prediction(pair, weights, tmp_path):
    assert study(pair, weights) == 0
    table = read_raw_data(tmp_path / "results" / "image_a" / "raw_data.csv")
    assert table["slice"].tolist() == [0, 1, 2]
    assert table.iloc[0, 1:].isna().tolist() == [True, True, True, False, True, True]
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    for index in (1, 2):
        rgb = slice_to_rgb(IMAGE[:, :, index], LUNG_WINDOW)
        reference = MASKS[:, :, index]
        prediction = segment(segmenter, rgb, make_prompts(reference, PromptProtocol()))
        row = table.loc[index].to_dict()
        assert row.pop("score") == pytest.approx(prediction.predicted_iou, abs=1e-6)
        assert row == {
            "slice": index,
            "jaccard": jaccard(prediction.mask, reference > 0),
            "dice": dice(prediction.mask, reference > 0),
            "lung_pixels": np.count_nonzero(reference),
            "predicted_pixels": np.count_nonzero(prediction.mask),
            "interactions": 3 + 2,
        }


def test_run_json_has_the_hash_of_the_file_that_was_read(pair, weights, monkeypatch, tmp_path):
    before = sha256_of(pair[0][0])
    decode = SamSegmenter.decode

    def replace_the_image(*args):
        save_nifti(pair[0][0], IMAGE + 1)
        return decode(*args)

    monkeypatch.setattr(SamSegmenter, "decode", replace_the_image)
    study(pair, weights)
    run = record(tmp_path)
    assert run.image["sha256"] == before != sha256_of(pair[0][0])


def test_a_package_that_is_not_installed_is_left_out_of_run_json(
    pair, weights, monkeypatch, tmp_path
):
    monkeypatch.setattr(provenance, "PACKAGES", (*provenance.PACKAGES, "no-such-package"))
    assert study(pair, weights) == 0
    run = record(tmp_path)
    assert "no-such-package" not in run.environment["packages"]


def test_run_json_records_how_the_results_were_made(pair, weights, tmp_path):
    study(pair, weights, window="-600,1600", box=False)
    run = record(tmp_path)
    assert run.reading == {
        "window": "-600,1600",
        "align": "auto",
        "objects": None,
        "spacing_mm": None,
        "series": None,
    }
    assert run.other_options["model"] == "vit_l"
    assert run.protocol["box"] is False
    assert run.window_hu == [-1400, 200]
    assert run.options["precision"] == "float32"
    assert run.environment["device"].startswith("cpu (")
    assert run.segmenter["weights"] == {weights.name: sha256_of(weights)}
    assert run.image == {"file": str(pair[0][0]), "sha256": sha256_of(pair[0][0])}
    assert run.masks == [{"file": str(pair[1][0]), "sha256": sha256_of(pair[1][0])}]
    assert (run.patient, run.subset, run.findings) == (None, None, [])
    assert run.environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert run.environment["threads"] == torch.get_num_threads()
    assert run.seconds > 0
    assert run.started
    assert run.command == sys.argv


def test_a_second_run_gives_the_same_bytes(pair, weights, tmp_path):
    tables = []
    for name in ("first", "second"):
        study(pair, weights, output_folder=tmp_path / name)
        folder = tmp_path / name / "image_a"
        tables.append([(folder / f"{name}.csv").read_bytes() for name in ("raw_data", "results")])
        assert visible(folder) == ["raw_data.csv", "results.csv", "run.json"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
@pytest.mark.parametrize("devices", [1, 3])
def test_tables_do_not_depend_on_batches_and_devices(
    pair, weights, tmp_path, monkeypatch, batch_size, devices
):
    tables = []
    image, masks = chest(slices=9)
    save_nifti(pair[0][0], image)
    save_nifti(pair[1][0], masks)
    for name, asked in (("first", None), ("second", batch_size)):
        monkeypatch.setattr(
            devices_module,
            "choose_devices",
            lambda _, asked=asked: [torch.device("cpu")] * (devices if asked else 1),
        )
        options = {"batch_size": asked, "empty_slices": "nearest", "prompts": tuple(SEVERAL)}
        study(pair, weights, output_folder=tmp_path / name, **options)
        tables.append(
            {
                str(path.relative_to(tmp_path / name)): path.read_bytes()
                for path in (tmp_path / name).rglob("*.csv")
            }
        )
    assert len(tables[0]) == 3 * len(SEVERAL)
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "change",
    [
        {"window": "-450,1000"},
        {"precision": "bfloat16", "allow_slow": True},
        {"points": "centroid", "box": False},
        {"negative": "none"},
        {"negative_offset": 15},
        {"box": False},
    ],
    ids=str,
)
def test_every_option_changes_the_predictions(pair, weights, tmp_path, change):
    masks = np.where(MASKS > 0, MASKS, 0)
    masks[14:26, 14:30, 1:] = 1  # concave, so that the point moves away from the centroid
    masks[16:24, 18:26, 1:] = 0
    save_nifti(pair[1][0], masks)
    study(pair, weights, output_folder=tmp_path / "default")
    study(pair, weights, output_folder=tmp_path / "changed", **change)
    default, changed = (
        pd.read_csv(tmp_path / name / "image_a" / "raw_data.csv") for name in ("default", "changed")
    )
    assert (default["score"][1:] != changed["score"][1:]).any()


def test_contours_prompt_every_region(pair, weights, tmp_path):
    masks = MASKS.copy()
    masks[:3, :3, 1] = 1  # a second region of label 1
    save_nifti(pair[1][0], masks)
    study(pair, weights, slice=1, debug=True, points="contours")
    prompt = yaml.safe_load((tmp_path / "debug" / "image_a" / "slice_1_prompt.yml").read_text())
    assert [point["label"] for point in prompt["points"]] == [1, 1, 1, 0]


SEVERAL = {name: PROTOCOLS[name] for name in ("paper", "no_box", "contours_points")}


def test_a_protocol_gives_the_same_tables_alone_and_with_others(pair, weights, tmp_path):
    assert study(pair, weights, prompts=tuple(SEVERAL), output_folder=tmp_path / "several") == 0
    assert sorted(path.name for path in (tmp_path / "several").iterdir()) == sorted(SEVERAL)
    for name, protocol in SEVERAL.items():
        options = {key: getattr(protocol, key) for key in ("points", "negative", "box")}
        study(pair, weights, output_folder=tmp_path / name, **options)
        together, alone = (
            folder / "image_a" for folder in (tmp_path / "several" / name, tmp_path / name)
        )
        for table in ("raw_data.csv", "results.csv"):
            assert (together / table).read_bytes() == (alone / table).read_bytes()
        rules = [RunRecord.read(folder).protocol for folder in (together, alone)]
        assert rules[0] == rules[1] == asdict(protocol)


def test_every_protocol_is_drawn_and_printed(pair, weights, tmp_path, capsys):
    study(pair, weights, prompts=tuple(SEVERAL), debug=True, slice=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == ["paper:", "no_box:", "contours_points:"]
    assert len(lines) == 9
    for name in SEVERAL:
        assert (tmp_path / "debug" / name / "image_a" / "slice_1_prediction.png").exists()


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """The number of slices in each call of the encoder."""
    given = []
    encode = SamSegmenter.encode

    def count(self, pictures):
        given.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(SamSegmenter, "encode", count)
    return given


def test_saved_embeddings_are_reused_with_other_prompts_and_batches(
    pair, weights, tmp_path, encoded
):
    kept = {"embeddings_folder": tmp_path / "embeddings"}
    study(pair, weights, **kept)
    assert sum(encoded) == 2
    first = (tmp_path / "results" / "image_a" / "raw_data.csv").read_bytes()
    study(pair, weights, **kept, prompts=tuple(SEVERAL), batch_size=1)
    study(pair, weights, **kept)
    assert sum(encoded) == 2
    assert (tmp_path / "results" / "image_a" / "raw_data.csv").read_bytes() == first


@pytest.mark.parametrize(
    "change", ["window", "precision", "stored", "weights", "voxels", "version"]
)
def test_saved_embeddings_are_computed_again_when_their_inputs_change(
    pair, weights, tmp_path, encoded, monkeypatch, change
):
    kept = {"embeddings_folder": tmp_path / "embeddings"}
    study(pair, weights, **kept, output_folder=tmp_path / "before")
    encoded.clear()
    changed = {
        "window": {"window": "-600,1600"},
        "precision": {"precision": "bfloat16", "allow_slow": True},
        "stored": {"embeddings_precision": "float16"},
    }.get(change, {})
    if change == "weights":
        weights.write_bytes(b"other weights")
        registry.identify.cache_clear()
    elif change == "voxels":
        image = IMAGE.copy()
        image[0, 0, 1] += 1
        save_nifti(pair[0][0], image)
    elif change == "version":
        monkeypatch.setattr(registry, "versions_of", lambda packages: {"torch": "0.1"})
        registry.identify.cache_clear()
    study(pair, weights, **kept, **changed)
    # The voxels of only one slice changed.
    assert sum(encoded) == (1 if change == "voxels" else 2)


@pytest.mark.parametrize("prompts", [None, tuple(SEVERAL)], ids=["one", "several"])
def test_masks_are_saved_on_the_grid_of_the_original_file(pair, weights, tmp_path, prompts):
    study(pair, weights, save_masks=True, prompts=prompts)
    original = nib.load(pair[0][0])
    for name in prompts or [""]:
        folder = tmp_path / "results" / name / "image_a"
        saved = nib.load(folder / "predicted_masks.nii.gz")
        np.testing.assert_array_equal(saved.affine, original.affine)
        assert saved.shape == original.shape
        assert saved.get_data_dtype() == np.uint8
        assert set(np.unique(saved.dataobj)) == {0, 1}
        masks = read_nifti(folder / "predicted_masks.nii.gz").array
        table = read_raw_data(folder / "raw_data.csv")
        areas = table["predicted_pixels"].fillna(0).tolist()
        assert masks.sum(axis=(0, 1), dtype=int).tolist() == areas
        for index in (1, 2):
            assert dice(masks[:, :, index] > 0, MASKS[:, :, index] > 0) == table["dice"][index]


def test_metrics_agree_with_the_saved_masks(pair, weights, tmp_path):
    in_3d = ("dice_3d", "nsd_3d", "hd95_3d")
    options = {"metrics": ("nsd", "hd95", "lung_slices_dice", *in_3d), "tolerance_mm": (1.0, 2.0)}
    study(pair, weights, save_masks=True, empty_slices="nearest", **options)
    folder = tmp_path / "results" / "image_a"
    masks = read_nifti(folder / "predicted_masks.nii.gz").array > 0
    assert masks[:, :, 0].any()  # all slices are saved, also those without lung
    table = pd.read_csv(folder / "raw_data.csv", index_col="slice")
    names = ["nsd_1mm", "nsd_2mm", "hd95_mm", "hd95_penalised_mm"]
    assert table.loc[0, names].isna().all()
    # In the affine of `save_nifti` a row is 0.8 mm high, a column 0.7 mm wide, a slice 5 mm thick.
    for index in (1, 2):
        one = surface_agreement(masks[:, :, index], MASKS[:, :, index] > 0, (0.8, 0.7), (1.0, 2.0))
        expected = [*one.nsd, one.hd95_mm, one.hd95_mm]
        assert table.loc[index, names].tolist() == pytest.approx(expected)
    results = pd.read_csv(folder / "results.csv", index_col="metric")
    with_lung = (MASKS > 0).any(axis=(0, 1))
    in_lung_slices = dice(masks[:, :, with_lung], MASKS[:, :, with_lung] > 0)
    assert results.loc["lung_slices_dice", "avg"] == pytest.approx(in_lung_slices)
    whole = surface_agreement(masks, MASKS > 0, (0.8, 0.7, 5.0), (1.0, 2.0))
    rows = ["dice_3d", "nsd_3d_1mm", "nsd_3d_2mm", "hd95_3d_mm", "hd95_3d_penalised_mm"]
    expected = [dice(masks, MASKS > 0), *whole.nsd, whole.hd95_mm, whole.hd95_mm]
    assert results.loc[rows, "avg"].tolist() == pytest.approx(expected)
    assert results.loc["interactions", "avg"] == table["interactions"].sum()


def test_one_click_adds_the_three_masks_and_the_oracle(pair, weights, tmp_path, capsys):
    clicks = {"objects": "apart", "prompts": ("points",)}
    study(pair, weights, output_folder=tmp_path / "plain", **clicks)
    clicks["metrics"] = ("jaccard", "dice", "one_click")
    study(pair, weights, empty_slices="nearest", **clicks)
    plain, table = (
        read_raw_data(tmp_path / name / "points" / "image_a" / "raw_data.csv")
        for name in ("plain", "results")
    )
    assert tuple(table.columns) == (*plain.columns, *CLICK_METRICS)
    pd.testing.assert_frame_equal(table[plain.columns], plain, check_exact=True)
    assert table.loc[0, list(CLICK_METRICS)].isna().all()
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    for index in (1, 2):
        reference = MASKS[:, :, index]
        embedding = segmenter.encode(
            [segmenter.prepare(slice_to_rgb(IMAGE[:, :, index], LUNG_WINDOW))]
        )
        alone = [np.where(reference == label, label, 0) for label in (1, 2)]
        prompts = [make_prompts(each, PROTOCOLS["points"]) for each in alone]
        decoded = segmenter.decode(embedding, reference.shape, [prompts], multimask=True)
        for number, mask in enumerate(decoded.masks[0].any(0).numpy(), 1):
            assert table.loc[index, f"dice_mask_{number}"] == dice(mask, reference > 0)
            assert table.loc[index, f"jaccard_mask_{number}"] == jaccard(mask, reference > 0)
    results = pd.read_csv(tmp_path / "results" / "points" / "image_a" / "results.csv")
    assert results["metric"].tolist() == ["jaccard", "dice", *CLICK_METRICS, "interactions"]
    assert results["avg"].tolist()[-2] == pytest.approx(table["dice_oracle"].mean())
    capsys.readouterr()
    study(pair, weights, slice=2, **clicks)
    assert f"dice_oracle: {table.loc[2, 'dice_oracle']:.4f}\n" in capsys.readouterr().out


def test_slices_without_lung_get_the_prompts_of_the_nearest_slice(weights, tmp_path):
    image, masks = (
        np.concatenate([one[..., :1], one[..., 1:], one[..., :1]], 2) for one in chest()
    )
    pair = [
        [save_nifti(tmp_path / f"{name}.nii.gz", array)]
        for name, array in (("image_a", image), ("masks_a", masks))
    ]
    study(pair, weights)
    folder = tmp_path / "results" / "image_a"
    skipped = pd.read_csv(folder / "raw_data.csv")
    study(pair, weights, empty_slices="nearest", overwrite=True)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "raw_data.csv"), skipped, check_exact=True)
    table = pd.read_csv(folder / "empty_slices.csv")
    assert table["slice"].tolist() == [0, 3]
    assert table["prompted_as"].tolist() == [1, 2]
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    for row in table.itertuples():
        prompts = make_prompts(masks[:, :, row.prompted_as], PromptProtocol())
        rgb = slice_to_rgb(image[:, :, row.slice], LUNG_WINDOW)
        assert segment(segmenter, rgb, prompts).mask.sum() == row.predicted_pixels
        assert row.predicted_mm2 == pytest.approx(row.predicted_pixels * 0.7 * 0.8)


def test_progress_has_no_mean_dice_until_there_is_one(pair, weights, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert study(pair, weights, empty_slices="nearest", batch_size=1) == 0
    # The first slice has no lung.
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("image_a: 1 of 3 slices")
    assert "Dice" not in first
    assert "mean Dice 0." in second


def test_overwrite_removes_all_files_of_the_earlier_run(pair, weights, tmp_path):
    study(pair, weights, save_masks=True, empty_slices="nearest")
    study(pair, weights, overwrite=True)
    names = ["raw_data.csv", "results.csv", "run.json"]
    assert visible(tmp_path / "results" / "image_a") == names


def test_options_that_need_an_affine_are_refused_without_one(weights, loaded, tmp_path, capsys):
    for name, array in (("image", IMAGE), ("masks", MASKS)):
        np.save(tmp_path / f"{name}.npy", array)
    paths = [tmp_path / "image.npy"], [tmp_path / "masks.npy"]
    for asked in ({"save_masks": True}, {"metrics": ("nsd",)}):
        assert study(paths, weights, **asked) == 1
        (option,) = asked
        assert f"leave out --{option}" in capsys.readouterr().err
    assert loaded == []


def test_slice_prints_the_metrics_and_writes_no_results(pair, weights, tmp_path, capsys):
    study(pair, weights, output_folder=tmp_path / "volume")
    row = pd.read_csv(tmp_path / "volume" / "image_a" / "raw_data.csv").iloc[2]
    capsys.readouterr()
    assert study(pair, weights, slice=2) == 0
    assert capsys.readouterr().out == (
        f"Jaccard index: {row['jaccard']:.4f}\nDice score: {row['dice']:.4f}\n"
    )
    assert not (tmp_path / "results").exists()


def test_a_slice_without_lung_is_reported_without_loading_a_model(pair, weights, loaded, capsys):
    assert study(pair, weights, slice=0) == 0
    assert "slice 0 has no lung" in capsys.readouterr().out
    assert loaded == []


def test_debug_draws_every_slice_with_lung_into_the_results_folder(pair, weights, tmp_path):
    study(pair, weights, debug=True)
    folder = tmp_path / "results" / "image_a" / "debug"
    names = [
        f"slice_{index}_{kind}" for index in (1, 2) for kind in ("prediction.png", "prompt.yml")
    ]
    assert visible(folder) == names
    assert {f"debug/{name}" for name in names} <= record(tmp_path).files.keys()
    prompts = make_prompts(MASKS[:, :, 2], PromptProtocol())
    top, left, bottom, right = prompts.box_rc.tolist()
    assert yaml.safe_load((folder / "slice_2_prompt.yml").read_text()) == {
        "image": str(pair[0][0]),
        "masks": str(pair[1][0]),
        "slice": 2,
        "points": [
            {"row": row, "column": column, "label": label}
            for (row, column), label in zip(prompts.points_rc.tolist(), (1, 1, 0), strict=True)
        ],
        "box": {"row_min": top, "column_min": left, "row_max": bottom, "column_max": right},
    }


def test_pictures_of_an_earlier_run_are_replaced(pair, weights, tmp_path):
    study(pair, weights, debug=True)
    picture = tmp_path / "results" / "image_a" / "debug" / "slice_1_prediction.png"
    before = picture.read_bytes()
    study(pair, weights, debug=True, window="-450,1000", overwrite=True)
    assert picture.read_bytes() != before
    study(pair, weights, overwrite=True)
    assert not picture.parent.exists()


def test_a_changed_picture_is_an_error(pair, weights, tmp_path, capsys):
    study(pair, weights, debug=True)
    picture = tmp_path / "results" / "image_a" / "debug" / "slice_1_prediction.png"
    picture.write_bytes(b"another")
    assert study(pair, weights, debug=True) == 1
    assert "slice_1_prediction.png: has changed" in capsys.readouterr().err


def test_results_are_written_to_the_output_folder(pair, weights, tmp_path):
    study(pair, weights, debug=True, output_folder=tmp_path / "out" / "vit_l")
    assert (tmp_path / "out" / "vit_l" / "image_a" / "raw_data.csv").exists()
    assert (tmp_path / "out" / "vit_l" / "image_a" / "debug" / "slice_1_prompt.yml").exists()
    assert not (tmp_path / "results").exists()


def test_one_bad_volume_does_not_stop_the_others(pair, weights, loaded, tmp_path, capsys):
    (tmp_path / "image_bad.nii.gz").write_bytes(b"not a volume")
    images = [tmp_path / "image_bad.nii.gz", *pair[0], tmp_path / "image_missing.npy"]
    assert study((images, pair[1] * 3), weights) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "image_missing" in errors[0]
    assert "image_bad" in errors[1]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["image_a"]
    assert loaded == ["vit_l"]


def test_volumes_of_different_formats_share_one_model(pair, weights, loaded, tmp_path):
    write_numpy(read_nifti(pair[0][0]), tmp_path / "image_b.npy")
    write_numpy(read_nifti(pair[1][0]), tmp_path / "masks_b.npz")
    images = [*pair[0], tmp_path / "image_b.npy"]
    assert study((images, [*pair[1], tmp_path / "masks_b.npz"]), weights) == 0
    a, b = (tmp_path / "results" / f"image_{name}" / "raw_data.csv" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    assert loaded == ["vit_l"]


def test_two_images_of_one_name_are_refused_before_either_is_processed(pair, weights, tmp_path):
    (tmp_path / "other").mkdir()
    images = [*pair[0], save_nifti(tmp_path / "other" / "image_a.nii", IMAGE)]
    a = save_nifti(tmp_path / "other" / "a.nii", IMAGE)
    # The tables leave out `image_`.
    with pytest.raises(InputError, match=rf"{a}: has the same name as {pair[0][0]} "):
        study(([*pair[0], a], pair[1] * 2), weights, output_folder=tmp_path / "out")
    with pytest.raises(InputError, match="image_a"):
        study((images, pair[1] * 2), weights, output_folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert study((images, pair[1] * 2), weights) == 0
    same_path = [pair[0][0], tmp_path / "other" / ".." / "image_a.nii.gz"]
    with pytest.raises(InputError, match="image_a"):
        study((same_path, pair[1] * 2), weights)


def test_with_several_volumes_each_slice_is_printed_below_its_image(
    pair, weights, tmp_path, capsys
):
    images = [*pair[0], save_nifti(tmp_path / "image_b.nii", IMAGE)]
    assert study((images, pair[1] * 2), weights, slice=1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{images[0]}:"
    assert lines[3] == f"{images[1]}:"


def test_debug_folder_is_beside_the_results_folder_of_any_name(
    pair, weights, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study(pair, weights, slice=1, debug=True, output_folder=Path())
    assert (tmp_path / "debug" / "image_a" / "slice_1_prompt.yml").exists()


@pytest.mark.parametrize(
    "name", ["figures", "report.html", "joint_results.csv", "no_box", "x" * 256]
)
def test_names_that_results_cannot_have_are_refused(weights, tmp_path, name):
    with pytest.raises(InputError, match=f"named {name}"):
        study(([tmp_path / f"{name}.nii"], [tmp_path / "masks.nii"]), weights)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("kind", ["image", "masks", "folder"])
def test_names_that_are_not_utf8_are_refused(pair, weights, tmp_path, kind):
    name = os.fsdecode(b"\xe9")
    image, masks, folder = pair[0][0], pair[1][0], tmp_path / "out"
    if kind == "image":
        image = save_nifti(tmp_path / f"image_{name}.nii", IMAGE)
    elif kind == "masks":
        masks = save_nifti(tmp_path / f"masks_{name}.nii", MASKS)
    else:
        folder = tmp_path / name
    with pytest.raises(InputError, match="rename it"):
        study(([image], [masks]), weights, output_folder=folder)


def test_findings_are_printed_once_and_recorded(pair, weights, tmp_path, capsys):
    moved = np.diag([-0.7, -0.8, 5, 1])
    moved[0, 3] = 0.3  # mm
    save_nifti(pair[1][0], MASKS, moved)
    assert study(pair, weights) == 0
    err = capsys.readouterr().err
    assert err.count("warning: ") == 1
    (finding,) = record(tmp_path).findings
    assert finding.keys() == {"name", "message", "is_allowed"}
    assert f"warning: {finding['message']}\n" in err


def test_missing_files_are_one_error_and_the_other_cases_are_processed(
    pair, weights, tmp_path, capsys
):
    missing = [tmp_path / f"image_{name}.npy" for name in ("b", "c")]
    assert study(([*missing, *pair[0]], pair[1] * 3), weights) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: {missing[0]}: no such file; 2 files of 2 cases are missing; check the path"
        " (nifti_to_numpy.py makes arrays)"
    ]
    assert record(tmp_path)


def test_one_image_may_have_a_masks_file_per_object(pair, weights, tmp_path):
    files = [save_nifti(tmp_path / f"{side}.nii.gz", np.uint8(side == MASKS)) for side in (1, 2)]
    study(pair, weights, output_folder=tmp_path / "together", debug=True)
    study((pair[0], files), weights, output_folder=tmp_path / "apart", debug=True)
    together, apart = (tmp_path / name / "image_a" for name in ("together", "apart"))
    assert (together / "raw_data.csv").read_bytes() == (apart / "raw_data.csv").read_bytes()
    assert RunRecord.read(apart).masks == [
        {"file": str(path), "sha256": sha256_of(path)} for path in files
    ]
    prompts = yaml.safe_load((apart / "debug" / "slice_1_prompt.yml").read_text())
    assert prompts["masks"] == list(map(str, files))


@pytest.fixture
def dataset(tmp_path):
    """A dataset file with the cases a and b, two scans of one patient, and c without masks."""
    for name in ("p_a", "p_b", "p_c"):
        (tmp_path / name).mkdir()
        save_nifti(tmp_path / name / "ct.nii.gz", IMAGE)
        if name != "p_c":
            save_nifti(tmp_path / name / "lungs.nii.gz", MASKS)
    (tmp_path / "dataset.yml").write_text(
        'images: "{case}/ct.nii.gz"\nmasks: "{case}/lungs.nii.gz"\npatient: "(p)_."\n'
    )
    return tmp_path / "dataset.yml"


def of_dataset(path, weights, **options) -> int:
    return run_study(Options(dataset=path, checkpoint=weights, device="cpu", **options))


def test_the_cases_of_a_dataset_are_processed_and_its_faults_reported(
    dataset, weights, tmp_path, capsys
):
    assert of_dataset(dataset, weights) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    (error,) = errors
    assert "p_c" in error
    assert visible(tmp_path / "results") == ["p_a", "p_b"]
    assert {record(tmp_path, name).patient for name in ("p_a", "p_b")} == {"p"}
    assert of_dataset(dataset, weights, cases=("p_b",), slice=1) == 0
    assert capsys.readouterr().out.startswith("Jaccard index: ")


def test_a_changed_patient_is_written_to_run_json_and_nothing_is_computed(
    dataset, weights, loaded, tmp_path, capsys
):
    of_dataset(dataset, weights, cases=("p_a",))
    before = record(tmp_path, "p_a")
    path = tmp_path / "results" / "p_a" / "run.json"
    text = dataset.read_text()
    for patient, subset in (("p_a", "p"), (None, None)):
        given = f'patient: "({patient})"\nsubset: "({subset})_.*"\n' if patient else ""
        dataset.write_text(text.replace('patient: "(p)_."\n', given))
        assert of_dataset(dataset, weights, cases=("p_a",)) == 0
        after = record(tmp_path, "p_a")
        assert (after.patient, after.subset) == (patient, subset)
        assert after.dataset["sha256"] == sha256_of(dataset)
        assert replace(after, patient="p", subset=None, dataset=before.dataset) == before
        written = path.stat().st_mtime_ns
        assert of_dataset(dataset, weights, cases=("p_a",)) == 0
        assert path.stat().st_mtime_ns == written
    assert loaded == ["vit_l"]


def test_run_json_names_the_dataset_file_which_decides_nothing(dataset, weights, tmp_path):
    of_dataset(dataset, weights)
    before = record(tmp_path, "p_a")
    assert before.dataset == {"file": str(dataset), "sha256": sha256_of(dataset)}
    assert not [name for name in before.fingerprint if "dataset" in name]
    dataset.write_text(dataset.read_text() + "# a comment\n")
    of_dataset(dataset, weights)
    assert record(tmp_path, "p_a") == before


def test_the_command_of_several_volumes_names_only_this_one(pair, weights, tmp_path, monkeypatch):
    images = [shutil.copy(*pair[0], tmp_path / f"image_{name}.nii.gz") for name in "bc"]
    masks = [shutil.copy(*pair[1], tmp_path / f"masks_{name}.nii.gz") for name in "bc"]
    texts = [*(str(each) for each in (*pair[0], *images)), "-m", *map(str, (*pair[1], *masks))]
    monkeypatch.setattr(sys, "argv", ["process_image.py", "-i", *texts, "--device", "cpu"])
    assert study(([*pair[0], *images], [*pair[1], *masks]), weights) == 0
    assert record(tmp_path, "image_b").command == [
        *("process_image.py", "-i", str(images[0]), "... and 2 more"),
        *("-m", str(masks[0]), "... and 2 more", "--device", "cpu"),
    ]


def test_without_a_dataset_file_the_patient_in_run_json_stays(dataset, weights, tmp_path):
    of_dataset(dataset, weights, cases=("p_a",), output_folder=tmp_path / "out")
    image, masks = (tmp_path / "p_a" / f"{name}.nii.gz" for name in ("ct", "lungs"))
    name = CaseFiles(image, (masks,)).name
    folder = (tmp_path / "out" / "p_a").rename(tmp_path / "out" / name)
    study(([image], [masks]), weights, output_folder=tmp_path / "out")
    assert RunRecord.read(folder).patient == "p"


def test_overwrite_computes_only_what_is_not_exactly_this_run(pair, weights, loaded, capsys):
    study(pair, weights)
    assert study(pair, weights, overwrite=True) == 0
    assert capsys.readouterr().out == "image_a: finished before, skipped\n"
    assert loaded == ["vit_l"]
    study(pair, weights, overwrite=True, window="none")
    assert loaded == ["vit_l", "vit_l"]


def test_overwrite_computes_results_of_other_code_again(
    pair, weights, monkeypatch, tmp_path, loaded, capsys
):
    study(pair, weights)
    elsewhere = {**record(tmp_path).environment, "code_sha256": "other"}
    monkeypatch.setattr(process, "environment", lambda device: elsewhere)
    monkeypatch.setattr(study_run, "code_sha256", lambda: "other")
    capsys.readouterr()
    assert study(pair, weights, overwrite=True) == 0
    assert "warning" not in capsys.readouterr().err
    assert loaded == ["vit_l", "vit_l"]
    assert record(tmp_path).environment == elsewhere


@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_a_slice_out_of_range_is_refused(pair, weights, capsys, index):
    assert study(pair, weights, slice=index) == 1
    assert "give 0 to 2" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    pair, weights, loaded, tmp_path, capsys
):
    (tmp_path / "file").touch()
    assert study(pair, weights, output_folder=tmp_path / "file" / "out") == 1
    assert "cannot be written to" in capsys.readouterr().err
    assert loaded == []


def test_a_file_under_an_official_name_must_hold_the_official_bytes(
    pair, weights, monkeypatch, tmp_path
):
    (tmp_path / "sam_vit_l_0b3195.pth").write_bytes(weights.read_bytes())
    monkeypatch.setattr(checkpoints.fetch, "__defaults__", (tmp_path, None))
    with pytest.raises(InputError, match="not the official vit_l"):
        study(pair, weights, checkpoint=None)
    assert not (tmp_path / "results").exists()


def test_a_failed_volume_keeps_its_earlier_results(pair, weights, tmp_path):
    study(pair, weights)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    assert len(before) == 2
    pair[0][0].write_bytes(pair[0][0].read_bytes()[:-9])
    assert study(pair, weights) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.csv")} == before


def test_unreadable_earlier_results_do_not_stop_other_volumes(pair, weights, tmp_path, capsys):
    image = save_nifti(tmp_path / "image_b.nii.gz", IMAGE)
    study(pair, weights)
    (tmp_path / "results" / "image_a" / "run.json").unlink()
    (tmp_path / "results" / "image_a" / "run.json").mkdir()
    assert study(([*pair[0], image], pair[1] * 2), weights) == 1
    assert "run.json is not a run record" in capsys.readouterr().err
    assert record(tmp_path, "image_b")


def test_results_of_other_code_are_skipped_with_a_warning(
    pair, weights, monkeypatch, tmp_path, capsys
):
    study(pair, weights)
    before = record(tmp_path)
    monkeypatch.setattr(study_run, "code_sha256", lambda: "other")
    capsys.readouterr()
    assert study(pair, weights) == 0
    out, err = capsys.readouterr()
    assert out == "image_a: finished before, skipped\n"
    assert err == (
        "warning: image_a: other code made these results; --overwrite computes them again\n"
    )
    assert record(tmp_path) == before


def test_one_protocol_of_other_code_is_skipped_with_a_warning_too(
    pair, weights, monkeypatch, capsys
):
    study(pair, weights, prompts=("paper",))
    monkeypatch.setattr(study_run, "code_sha256", lambda: 64 * "f")
    study(pair, weights, prompts=("paper", "no_box"))
    assert "warning: image_a: other code made these results" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["device", "threads", "python", "packages", "commit"])
def test_finished_results_of_another_environment_are_skipped(
    pair, weights, monkeypatch, tmp_path, capsys, name
):
    study(pair, weights)
    before = record(tmp_path)
    elsewhere = {**before.environment, name: {"torch": "1"} if name == "packages" else "other"}
    monkeypatch.setattr(process, "environment", lambda device: elsewhere)
    capsys.readouterr()
    assert study(pair, weights) == 0
    assert capsys.readouterr() == ("image_a: finished before, skipped\n", "")
    assert record(tmp_path) == before


def test_results_of_another_numbers_version_are_refused(pair, weights, monkeypatch, capsys):
    study(pair, weights)
    monkeypatch.setattr(process, "NUMBERS_VERSION", 0)
    assert study(pair, weights) == 1
    assert "numbers version 3 there, 0 now" in capsys.readouterr().err


def test_only_one_model_is_in_memory(pair, weights, monkeypatch):
    alive, most = [], []

    def load(name, *_):
        gc.collect()
        most.append(sum(model() is not None for model in alive))
        sam = tiny_sam()
        alive.append(weakref.ref(sam))
        return sam

    monkeypatch.setattr(checkpoints, "load_sam", load)
    monkeypatch.setattr(checkpoints, "fetch", lambda name: weights)
    monkeypatch.setattr(checkpoints, "CHECKPOINTS_FOLDER", weights.parent)
    assert run_study(Options(*pair, model="vit_b,vit_l,vit_h", device="cpu")) == 0
    assert most == [0, 0, 0]
