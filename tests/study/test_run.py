"""The whole way from files to files, with a tiny SAM in place of the real one."""

import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.data.volumes import read_nifti, write_numpy
from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.rules import PROTOCOLS, PromptProtocol, make_prompts
from sam_lungs.segmenters import checkpoints
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.metrics import dice, jaccard, surface_agreement
from sam_lungs.study.options import Options
from sam_lungs.study.results import read_raw_data
from sam_lungs.study.run import Study
from sam_lungs.utils import provenance
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

    def load_sam(name, given, is_verified):
        assert given == path
        loaded.append(name)
        return tiny_sam()

    monkeypatch.setattr(checkpoints, "load_sam", load_sam)
    return path


@pytest.fixture
def pair(tmp_path):
    """An image and its masks, three slices of which the first has no lung."""
    return (
        [save_nifti(tmp_path / "image_a.nii.gz", IMAGE)],
        [save_nifti(tmp_path / "masks_a.nii.gz", MASKS)],
    )


def study(weights, **options) -> Study:
    return Study(Options(**{"checkpoint": weights, "device": "cpu"} | options))


def test_a_volume_gives_a_row_per_slice_that_can_be_made_again_by_hand(pair, weights, tmp_path):
    assert study(weights).run(*pair) == 0
    table = read_raw_data(tmp_path / "results" / "image_a" / "raw_data.csv")
    assert table["slice"].tolist() == [0, 1, 2]
    assert table.iloc[0, 1:].isna().tolist() == [True, True, True, False, True]
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    for index in (1, 2):
        rgb = slice_to_rgb(IMAGE[:, :, index], LUNG_WINDOW)
        true = MASKS[:, :, index]
        prediction = segmenter.segment(rgb, make_prompts(true, PromptProtocol()))
        row = table.loc[index].to_dict()
        assert row.pop("score") == pytest.approx(prediction.score, abs=1e-6)
        assert row == {
            "slice": index,
            "jaccard": jaccard(prediction.mask, true > 0),
            "dice": dice(prediction.mask, true > 0),
            "lung_pixels": np.count_nonzero(true),
            "predicted_pixels": np.count_nonzero(prediction.mask),
        }


def test_what_run_json_names_is_what_was_read_not_what_came_later(
    pair, weights, monkeypatch, tmp_path
):
    before = sha256_of(pair[0][0])
    decode = SamSegmenter.decode

    def replace_the_image(*args):
        save_nifti(pair[0][0], IMAGE + 1)
        return decode(*args)

    monkeypatch.setattr(SamSegmenter, "decode", replace_the_image)
    study(weights).run(*pair)
    run = json.loads((tmp_path / "results" / "image_a" / "run.json").read_text())
    assert run["image"]["sha256"] == before != sha256_of(pair[0][0])


def test_a_package_under_another_name_does_not_lose_a_volume(pair, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGES", (*provenance.PACKAGES, "no-such-package"))
    assert study(weights).run(*pair) == 0
    run = json.loads((tmp_path / "results" / "image_a" / "run.json").read_text())
    assert "no-such-package" not in run["versions"]


def test_run_json_says_how_to_repeat_the_run(pair, weights, tmp_path):
    study(weights, window="-600,1600", protocols={"": PromptProtocol(box=False)}).run(*pair)
    run = json.loads((tmp_path / "results" / "image_a" / "run.json").read_text())
    assert run["options"]["model"] == "vit_l"
    assert run["protocol"]["box"] is False
    assert run["window_hu"] == [-1400, 200]
    assert run["precision"] == "float32"
    assert run["device"].startswith("cpu (")
    assert run["checkpoint"] == {"file": str(weights), "sha256": sha256_of(weights)}
    assert run["image"] == {"file": str(pair[0][0]), "sha256": sha256_of(pair[0][0])}
    assert run["masks"] == {"file": str(pair[1][0]), "sha256": sha256_of(pair[1][0])}
    assert run["versions"]["torch"] == torch.__version__.split("+")[0]
    assert run["geometry_warning"] is None
    assert run["seconds"] > 0
    assert {"commit", "started", "command"} <= set(run)


def test_a_second_run_gives_the_same_bytes(pair, weights, tmp_path):
    tables = []
    for _ in range(2):
        study(weights, overwrite=True).run(*pair)
        folder = tmp_path / "results" / "image_a"
        tables.append([(folder / f"{name}.csv").read_bytes() for name in ("raw_data", "results")])
        assert len(list(folder.iterdir())) == 3
    assert tables[0] == tables[1]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
@pytest.mark.parametrize("devices", [1, 3])
def test_neither_batches_nor_devices_change_a_byte(
    pair, weights, tmp_path, monkeypatch, batch_size, devices
):
    tables = []
    image, masks = chest(slices=9)
    save_nifti(pair[0][0], image)
    save_nifti(pair[1][0], masks)
    for name, asked in (("first", None), ("second", batch_size)):
        monkeypatch.setattr(
            "sam_lungs.study.run.choose_devices",
            lambda _, asked=asked: [torch.device("cpu")] * (devices if asked else 1),
        )
        options = {"batch_size": asked, "empty_slices": "nearest", "protocols": SWEEP}
        study(weights, output_folder=tmp_path / name, **options).run(*pair)
        tables.append(
            {
                str(path.relative_to(tmp_path / name)): path.read_bytes()
                for path in (tmp_path / name).rglob("*.csv")
            }
        )
    assert len(tables[0]) == 3 * len(SWEEP)
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "change",
    [
        {"window": "40,400"},
        {"precision": "bfloat16"},
        *(
            {"protocols": {"": protocol}}
            for protocol in (
                PromptProtocol(points="centroid", box=False),
                PromptProtocol(negative="none"),
                PromptProtocol(negative_offset_rows=15),
                PromptProtocol(box=False),
            )
        ),
    ],
    ids=str,
)
def test_every_option_changes_what_sam_answers(pair, weights, tmp_path, change):
    masks = np.where(MASKS > 0, MASKS, 0)
    masks[14:26, 14:30, 1:] = 1  # concave, so that its centroid is not where the point slides
    masks[16:24, 18:26, 1:] = 0
    save_nifti(pair[1][0], masks)
    study(weights, output_folder=tmp_path / "default").run(*pair)
    study(weights, output_folder=tmp_path / "changed", **change).run(*pair)
    default, changed = (
        pd.read_csv(tmp_path / name / "image_a" / "raw_data.csv") for name in ("default", "changed")
    )
    assert (default["score"][1:] != changed["score"][1:]).any()


def test_contours_prompt_every_region(pair, weights, tmp_path):
    masks = MASKS.copy()
    masks[:3, :3, 1] = 1  # a second region of label 1
    save_nifti(pair[1][0], masks)
    study(
        weights, slice_index=1, debug=True, protocols={"": PromptProtocol(points="contours")}
    ).run(*pair)
    prompt = yaml.safe_load((tmp_path / "debug" / "image_a" / "slice_1_prompt.yml").read_text())
    assert [point["label"] for point in prompt["points"]] == [1, 1, 1, 0]


SWEEP = {name: PROTOCOLS[name] for name in ("paper", "no_box", "contours_points")}


def test_a_protocol_in_a_sweep_equals_that_protocol_alone(pair, weights, tmp_path):
    assert study(weights, protocols=SWEEP, output_folder=tmp_path / "sweep").run(*pair) == 0
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == sorted(SWEEP)
    for name, protocol in SWEEP.items():
        study(weights, protocols={"": protocol}, output_folder=tmp_path / name).run(*pair)
        swept, alone = (
            folder / "image_a" for folder in (tmp_path / "sweep" / name, tmp_path / name)
        )
        for table in ("raw_data.csv", "results.csv"):
            assert (swept / table).read_bytes() == (alone / table).read_bytes()
        rules = [json.loads((folder / "run.json").read_text()) for folder in (swept, alone)]
        assert rules[0]["protocol"] == rules[1]["protocol"] == asdict(protocol)


def test_a_sweep_draws_and_prints_every_protocol(pair, weights, tmp_path, capsys):
    study(weights, protocols=SWEEP, debug=True, slice_index=1).run(*pair)
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == ["paper:", "no_box:", "contours_points:"]
    assert len(lines) == 9
    for name in SWEEP:
        assert (tmp_path / "debug" / name / "image_a" / "slice_1_prediction.png").exists()


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many slices each call of the encoder was given."""
    given = []
    encode = SamSegmenter.encode

    def count(self, pictures):
        given.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(SamSegmenter, "encode", count)
    return given


def test_kept_embeddings_are_used_again_by_whatever_does_not_change_them(
    pair, weights, tmp_path, encoded
):
    kept = {"embeddings_folder": tmp_path / "embeddings"}
    study(weights, **kept).run(*pair)
    assert sum(encoded) == 2
    first = (tmp_path / "results" / "image_a" / "raw_data.csv").read_bytes()
    study(weights, **kept, protocols=SWEEP, batch_size=1).run(*pair)
    study(weights, **kept).run(*pair)
    assert sum(encoded) == 2
    assert (tmp_path / "results" / "image_a" / "raw_data.csv").read_bytes() == first


@pytest.mark.parametrize("what", ["window", "precision", "stored", "weights", "voxels", "version"])
def test_kept_embeddings_are_made_again_by_whatever_changes_them(
    pair, weights, tmp_path, encoded, monkeypatch, what
):
    kept = {"embeddings_folder": tmp_path / "embeddings"}
    study(weights, **kept).run(*pair)
    encoded.clear()
    changed = {
        "window": {"window": "-600,1600"},
        "precision": {"precision": "bfloat16"},
        "stored": {"embeddings_precision": "float16"},
    }.get(what, {})
    if what == "weights":
        weights.write_bytes(b"other weights")
    elif what == "voxels":
        image = IMAGE.copy()
        image[0, 0, 1] += 1
        save_nifti(pair[0][0], image)
    elif what == "version":
        monkeypatch.setattr(provenance, "package_versions", lambda: {"torch": "0.1"})
    study(weights, **kept, **changed, overwrite=True).run(*pair)
    # Of the voxels one slice's changed.
    assert sum(encoded) == (1 if what == "voxels" else 2)


@pytest.mark.parametrize("protocols", [{"": PROTOCOLS["paper"]}, SWEEP], ids=["one", "sweep"])
def test_masks_are_saved_on_the_grid_of_the_original_file(pair, weights, tmp_path, protocols):
    study(weights, save_masks=True, protocols=protocols).run(*pair)
    original = nib.load(pair[0][0])
    for name in protocols:
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


def test_metrics_are_of_the_masks_that_are_saved(pair, weights, tmp_path):
    options = {"metrics": ("nsd", "hd95_mm", "volume_dice"), "tolerance_mm": 2.0}
    study(weights, save_masks=True, **options).run(*pair)
    folder = tmp_path / "results" / "image_a"
    masks = read_nifti(folder / "predicted_masks.nii.gz").array
    table = pd.read_csv(folder / "raw_data.csv", index_col="slice")
    assert table.loc[0, ["nsd", "hd95_mm"]].isna().all()
    for index in (1, 2):
        # As `save_nifti` places it, a row is 0.8 mm high and a column 0.7 mm wide.
        expected = surface_agreement(
            masks[:, :, index] > 0, MASKS[:, :, index] > 0, (0.8, 0.7), 2.0
        )
        assert table.loc[index, ["nsd", "hd95_mm"]].tolist() == pytest.approx(expected)
    results = pd.read_csv(folder / "results.csv", index_col="metric")
    assert results.loc["volume_dice", "avg"] == pytest.approx(dice(masks > 0, MASKS > 0))


def test_slices_without_lung_are_prompted_as_the_nearest(weights, tmp_path):
    image, masks = (
        np.concatenate([one[..., :1], one[..., 1:], one[..., :1]], 2) for one in chest()
    )
    pair = [
        [save_nifti(tmp_path / f"{name}.nii.gz", array)]
        for name, array in (("image_a", image), ("masks_a", masks))
    ]
    study(weights).run(*pair)
    folder = tmp_path / "results" / "image_a"
    skipped = pd.read_csv(folder / "raw_data.csv")
    study(weights, empty_slices="nearest", overwrite=True).run(*pair)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "raw_data.csv"), skipped, check_exact=True)
    table = pd.read_csv(folder / "empty_slices.csv")
    assert table["slice"].tolist() == [0, 3]
    assert table["prompted_as"].tolist() == [1, 2]
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    for row in table.itertuples():
        prompts = make_prompts(masks[:, :, row.prompted_as], PromptProtocol())
        rgb = slice_to_rgb(image[:, :, row.slice], LUNG_WINDOW)
        assert segmenter.segment(rgb, prompts).mask.sum() == row.predicted_pixels
        assert row.predicted_mm2 == pytest.approx(row.predicted_pixels * 0.7 * 0.8)


def test_a_later_run_leaves_nothing_of_an_earlier_one(pair, weights, tmp_path):
    study(weights, save_masks=True, empty_slices="nearest").run(*pair)
    study(weights, overwrite=True).run(*pair)
    names = sorted(path.name for path in (tmp_path / "results" / "image_a").iterdir())
    assert names == ["raw_data.csv", "results.csv", "run.json"]


def test_masks_of_a_volume_that_nothing_is_known_about_are_refused(
    weights, loaded, tmp_path, capsys
):
    for name, array in (("image", IMAGE), ("masks", MASKS)):
        np.save(tmp_path / f"{name}.npy", array)
    paths = [tmp_path / "image.npy"], [tmp_path / "masks.npy"]
    for asked in ({"save_masks": True}, {"metrics": ("nsd",)}):
        assert study(weights, **asked).run(*paths) == 1
        (option,) = asked
        assert f"without --{option}" in capsys.readouterr().err
    assert loaded == []


def test_one_slice_is_printed_and_leaves_no_results(pair, weights, tmp_path, capsys):
    study(weights, output_folder=tmp_path / "volume").run(*pair)
    row = pd.read_csv(tmp_path / "volume" / "image_a" / "raw_data.csv").iloc[2]
    capsys.readouterr()
    assert study(weights, slice_index=2).run(*pair) == 0
    assert capsys.readouterr().out == (
        f"Jaccard index: {row['jaccard']:.4f}\nDice score: {row['dice']:.4f}\n"
    )
    assert not (tmp_path / "results").exists()


def test_a_slice_without_lung_says_so_and_needs_no_model(pair, weights, loaded, capsys):
    assert study(weights, slice_index=0).run(*pair) == 0
    assert "slice 0 has no lung" in capsys.readouterr().out
    assert loaded == []


def test_debug_draws_and_writes_down_every_slice_with_lung(pair, weights, tmp_path):
    study(weights, debug=True).run(*pair)
    folder = tmp_path / "debug" / "image_a"
    assert sorted(path.name for path in folder.iterdir()) == [
        "slice_1_prediction.png",
        "slice_1_prompt.yml",
        "slice_2_prediction.png",
        "slice_2_prompt.yml",
    ]
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


def test_an_output_folder_takes_results_and_debug_is_beside_it(pair, weights, tmp_path):
    study(weights, debug=True, output_folder=tmp_path / "out" / "vit_l").run(*pair)
    assert (tmp_path / "out" / "vit_l" / "image_a" / "raw_data.csv").exists()
    assert (tmp_path / "out" / "debug" / "image_a" / "slice_1_prompt.yml").exists()
    assert not (tmp_path / "results").exists()


def test_one_bad_volume_does_not_stop_the_others(pair, weights, loaded, tmp_path, capsys):
    (tmp_path / "image_bad.nii.gz").write_bytes(b"not a volume")
    images = [tmp_path / "image_bad.nii.gz", *pair[0], tmp_path / "image_missing.npy"]
    assert study(weights).run(images, pair[1] * 3) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 2
    assert "image_bad" in said[0]
    assert "image_missing" in said[1]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["image_a"]
    assert loaded == ["vit_l"]


def test_several_volumes_share_one_model_whatever_their_format(pair, weights, loaded, tmp_path):
    write_numpy(read_nifti(pair[0][0]), tmp_path / "image_b.npy")
    write_numpy(read_nifti(pair[1][0]), tmp_path / "masks_b.npz")
    images = [*pair[0], tmp_path / "image_b.npy"]
    assert study(weights).run(images, [*pair[1], tmp_path / "masks_b.npz"]) == 0
    a, b = (tmp_path / "results" / f"image_{name}" / "raw_data.csv" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    assert loaded == ["vit_l"]


def test_images_and_masks_must_pair_up(pair, weights):
    with pytest.raises(InputError, match="1 images but 2 masks"):
        study(weights).run(pair[0], pair[1] * 2)


def test_two_images_of_one_name_are_refused_before_either_is_processed(pair, weights, tmp_path):
    (tmp_path / "other").mkdir()
    images = [*pair[0], save_nifti(tmp_path / "other" / "image_a.nii", IMAGE)]
    with pytest.raises(InputError, match="image_a"):
        study(weights, output_folder=tmp_path / "out").run(images, pair[1] * 2)
    assert not (tmp_path / "out").exists()
    assert study(weights).run(images, pair[1] * 2) == 0
    roundabout = [pair[0][0], tmp_path / "other" / ".." / "image_a.nii.gz"]
    with pytest.raises(InputError, match="image_a"):
        study(weights).run(roundabout, pair[1] * 2)


def test_slices_of_several_volumes_are_told_apart(pair, weights, tmp_path, capsys):
    images = [*pair[0], save_nifti(tmp_path / "image_b.nii", IMAGE)]
    assert study(weights, slice_index=1).run(images, pair[1] * 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{images[0]}:"
    assert lines[3] == f"{images[1]}:"


def test_debug_is_beside_the_results_folder_whatever_that_is_called(
    pair, weights, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study(weights, slice_index=1, debug=True, output_folder=Path(".")).run(*pair)
    assert (tmp_path / "debug" / "image_a" / "slice_1_prompt.yml").exists()


def test_affines_that_disagree_are_warned_about_and_recorded(pair, weights, tmp_path, capsys):
    save_nifti(pair[1][0], MASKS, np.diag([1.0, 1, 1, 1]))
    assert study(weights).run(*pair) == 0
    assert capsys.readouterr().err.count("warning: ") == 1
    run = json.loads((tmp_path / "results" / "image_a" / "run.json").read_text())
    assert "affine" in run["geometry_warning"]
    assert study(weights, strict_geometry=True).run(*pair) == 1


@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_a_slice_out_of_range_is_refused(pair, weights, capsys, index):
    assert study(weights, slice_index=index).run(*pair) == 1
    assert "slices are 0 to 2" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    pair, weights, loaded, tmp_path, capsys
):
    (tmp_path / "file").touch()
    assert study(weights, output_folder=tmp_path / "file" / "out").run(*pair) == 1
    assert "cannot be written to" in capsys.readouterr().err
    assert loaded == []


def test_a_file_under_an_official_name_must_hold_the_official_bytes(
    pair, weights, monkeypatch, tmp_path
):
    monkeypatch.setattr(checkpoints, "fetch", lambda name: weights)
    with pytest.raises(InputError, match="not the official vit_l"):
        study(weights, checkpoint=None).run(*pair)
    assert not (tmp_path / "results").exists()


def test_a_failed_volume_keeps_the_results_it_had(pair, weights, tmp_path):
    study(weights).run(*pair)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    assert len(before) == 2
    pair[0][0].write_bytes(pair[0][0].read_bytes()[:-9])
    assert study(weights).run(*pair) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.csv")} == before


def test_what_cannot_be_read_of_earlier_results_stops_no_other_volume(
    pair, weights, tmp_path, capsys
):
    image = save_nifti(tmp_path / "image_b.nii.gz", IMAGE)
    study(weights).run(*pair)
    (tmp_path / "results" / "image_a" / "raw_data.csv").unlink()
    (tmp_path / "results" / "image_a" / "raw_data.csv").mkdir()
    assert study(weights).run([*pair[0], image], pair[1] * 2) == 1
    assert "raw_data.csv: not a regular file" in capsys.readouterr().err
    assert (tmp_path / "results" / "image_b" / "run.json").exists()


def test_code_that_changes_while_the_study_runs_is_not_taken_for_what_ran(
    pair, weights, monkeypatch, tmp_path
):
    begun = study(weights)
    monkeypatch.setattr(provenance, "code_sha256", lambda modules: "of other code")
    assert begun.run(*pair) == 0
    run = json.loads((tmp_path / "results" / "image_a" / "run.json").read_text())
    assert run["code_sha256"] != "of other code"
