"""Prompts of a file in place of a protocol: `process_image.py --prompts_file`."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters import checkpoints, registry
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.dry_run import check_study
from sam_lungs.study.metrics import dice
from sam_lungs.study.options import Options
from sam_lungs.study.results import read_empty_slices, read_raw_data
from sam_lungs.study.run import run_study
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.score import score_study
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.study.unfinished import UnfinishedRun
from sam_lungs.summary.compare import compare_runs, read_runs
from sam_lungs.summary.join import join_results, write_tables
from sam_lungs.summary.report import report_study
from sam_lungs.utils.errors import InputError

IMAGE, MASKS = chest(slices=5)  # no lung in slice 0
HEADER = "case,slice,kind,row,column,row2,column2"
CLICKS = f"{HEADER}\nimage_a,1,positive,20,17,,\nimage_a,3,box,8,8,32,48\n"
RATERS = f"""{HEADER},rater,seconds
image_a,1,positive,20,17,,,ann,3.5
image_a,2,positive,20,17,,,ann,
image_a,2,negative,2,2,,,ann,12
image_a,1,box,8,8,32,48,bob,7
image_a,0,positive,20,17,,,bob,1
"""


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Return the options of a study of one volume with a tiny SAM, and a table of prompts."""
    weights = tmp_path / "tiny.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(checkpoints, "load_sam", lambda name, path: tiny_sam())
    registry.identify.cache_clear()
    images = [save_nifti(tmp_path / "image_a.nii.gz", IMAGE)]
    masks = [save_nifti(tmp_path / "masks_a.nii.gz", MASKS)]

    def options(table: str | Path | None = None, with_masks: bool = True, **given) -> Options:
        if isinstance(table, str):
            (tmp_path / "prompts.csv").write_text(table)
            table = tmp_path / "prompts.csv"
        given = {"checkpoint": weights, "device": "cpu"} | given
        return Options(images, masks if with_masks else (), prompts_file=table, **given)

    return options


def saved_masks(folder: Path) -> np.ndarray:
    return nib.load(folder / "predicted_masks.nii.gz").get_fdata().swapaxes(0, 1)


def test_prompts_that_debug_wrote_give_the_masks_of_its_run(study, tmp_path):
    assert run_study(study(debug=True, save_masks=True, output_folder=tmp_path / "first")) == 0
    first = tmp_path / "first" / "image_a"
    given = {"debug": True, "save_masks": True, "output_folder": tmp_path / "again"}
    assert run_study(study(first / "debug", **given)) == 0
    again = tmp_path / "again" / "image_a"
    assert np.array_equal(saved_masks(first), saved_masks(again))
    tables = [read_raw_data(folder / "raw_data.csv") for folder in (first, again)]
    scores = [table.pop("score").to_numpy() for table in tables]
    np.testing.assert_allclose(*scores, atol=1e-6)
    assert tables[0].equals(tables[1])
    for path in (first / "debug").glob("*.yml"):
        assert (again / "debug" / path.name).read_bytes() == path.read_bytes()
    assert RunRecord.read(again).protocol.keys() == {"prompts_file", "sha256"}
    assert RunRecord.read(again).protocol["prompts_file"] == "debug"


def test_an_edited_prompt_changes_the_result_and_is_another_run(study, tmp_path, capsys):
    run_study(study(debug=True, save_masks=True, output_folder=tmp_path / "first"))
    path = tmp_path / "first" / "image_a" / "debug" / "slice_2_prompt.yml"
    assert run_study(study(path.parent, save_masks=True)) == 0
    before = saved_masks(tmp_path / "results" / "image_a")
    content = yaml.safe_load(path.read_text())
    content |= {"points": [{"row": 1, "column": 1, "label": 1}], "box": None}
    path.write_text(yaml.safe_dump(content))
    capsys.readouterr()
    assert run_study(study(path.parent, save_masks=True)) == 1
    assert "holds another run (prompts: sha256 " in capsys.readouterr().err
    assert run_study(study(path.parent, save_masks=True, overwrite=True)) == 0
    after = saved_masks(tmp_path / "results" / "image_a")
    changed = (before != after).any(axis=(0, 1))
    assert changed.tolist() == [False, False, True, False, False]
    table = read_raw_data(tmp_path / "results" / "image_a" / "raw_data.csv")
    assert table["interactions"].tolist()[1:] == [5, 1, 5, 5]


def test_a_click_has_the_mask_of_decode_slice_to_the_bit(study, tmp_path):
    rows = "".join(f"image_a,{index},positive,20,17,,\n" for index in (1, 2, 4))
    run_study(study(f"{HEADER}\n{rows}", save_masks=True))
    table = read_raw_data(tmp_path / "results" / "image_a" / "raw_data.csv")
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    click = Prompts(np.array([[20, 17]]), np.array([1]), None)
    other = Prompts(np.array([[3, 3], [9, 9]]), np.array([1, 0]), np.array([0, 0, 30, 30]))
    for index in (1, 2, 4):
        rgb = slice_to_rgb(IMAGE[..., index], LUNG_WINDOW)
        embeddings = segmenter.encode([segmenter.prepare(rgb)])
        decoded = segmenter.decode_slice(embeddings, rgb.shape[:2], [other, click])
        mask = decoded.masks[1].numpy()
        assert table["dice"][index] == dice(mask, MASKS[..., index] > 0)
        assert table["score"][index] == decoded.predicted_ious[1].item()
        assert np.array_equal(saved_masks(tmp_path / "results" / "image_a")[..., index] > 0, mask)


def test_raters_are_runs_that_are_compared_and_joined(study, tmp_path, capsys):
    rows = RATERS + "image_b,1,positive,1,1,,,eve,5\n"
    assert list(study(rows).protocols) == ["ann", "bob"]
    assert run_study(study(rows, batch_size=3)) == 0
    assert "has prompts for 1 other case, such as image_b" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["ann", "bob"]
    ann, bob = (tmp_path / "results" / name for name in ("ann", "bob"))
    table = read_raw_data(ann / "image_a" / "raw_data.csv")
    assert list(table)[-2:] == ["interactions", "seconds"]
    assert table["interactions"].fillna(-1).tolist() == [-1, 1, 2, -1, -1]
    assert table["seconds"].fillna("").tolist() == ["", "3.5", "12", "", ""]
    # A slice with lung that nobody prompted is not measured, but has lung.
    assert table["lung_pixels"].tolist() == np.count_nonzero(MASKS, axis=(0, 1)).tolist()
    assert table["dice"].notna().tolist() == [False, True, True, False, False]
    table = read_raw_data(bob / "image_a" / "raw_data.csv")
    assert table["interactions"].fillna(-1).tolist() == [1, 2, -1, -1, -1]
    assert table["seconds"].fillna("").tolist() == ["1", "7", "", "", ""]
    (empty,) = read_empty_slices(bob / "image_a").itertuples()
    assert empty.slice == 0
    assert pd.isna(empty.prompted_as)
    run_study(study(output_folder=tmp_path / "ideal"))
    table = compare_runs(read_runs([ann, bob, tmp_path / "ideal"]))
    row = table.query("first == 'ann' and second == 'bob' and metric == 'dice'").iloc[0]
    assert (row["slices"], row["slices_left_out"]) == (1, 1)
    assert (row["first_interactions"], row["second_interactions"]) == (3, 3)
    joined = join_results(ann)
    assert joined.volumes["lung_slices"].tolist() == [4]
    assert joined.volumes["dice_slices"].tolist() == [2]
    # Of all slices with lung there is none.
    assert joined.volumes["lung_slices_dice"].isna().all()
    write_tables(joined, ann)
    assert "interactions,seconds\n" in (ann / "joint_raw_data.csv").read_text()
    assert "image_a,2," in (ann / "joint_raw_data.csv").read_text()
    report_study([ann, bob])
    assert "Its prompts are made from" not in (ann / "report.html").read_text()


def test_only_the_prompts_of_a_case_are_in_its_fingerprint(study, tmp_path, capsys):
    run_study(study(CLICKS))
    path = tmp_path / "results" / "image_a" / "run.json"
    first = json.loads(path.read_text())["protocol"]
    for table in (CLICKS + "image_b,0,positive,1,1,,\n", "\n\n" + CLICKS):
        assert run_study(study(table)) == 0
        assert "finished before, skipped" in capsys.readouterr().out
    (tmp_path / "renamed.csv").write_text(CLICKS)
    assert run_study(study(tmp_path / "renamed.csv")) == 0
    assert "finished before, skipped" in capsys.readouterr().out
    assert run_study(study(CLICKS.replace("20,17", "20,18"))) == 1
    assert run_study(study(CLICKS.replace("8,8,32,48", "8,8,32,47"))) == 1
    assert run_study(study(CLICKS.replace("positive", "negative"))) == 1
    assert run_study(study()) == 1
    assert json.loads(path.read_text())["protocol"] == first


def test_without_masks_there_are_masks_and_pictures_but_no_metrics(study, tmp_path, capsys):
    given = {"save_masks": True, "debug": True}
    assert run_study(study(CLICKS, output_folder=tmp_path / "with", **given)) == 0
    assert run_study(study(CLICKS, with_masks=False, **given)) == 0
    with_masks, folder = tmp_path / "with" / "image_a", tmp_path / "results" / "image_a"
    assert np.array_equal(saved_masks(folder), saved_masks(with_masks))
    known, table = (
        read_raw_data(each / "raw_data.csv").set_index("slice") for each in (with_masks, folder)
    )
    assert table[["jaccard", "dice", "lung_pixels"]].isna().all(axis=None)
    same = ["score", "predicted_pixels", "interactions"]
    assert table[same].equals(known[same])
    assert (folder / "results.csv").read_text() == (
        "metric,min,max,avg,std,slices\ninteractions,,,3.0,,\n"
    )
    assert not (folder / "empty_slices.csv").exists()
    assert RunRecord.read(folder).masks == []
    assert {path.name for path in (folder / "debug").iterdir()} == {
        f"slice_{index}_{name}" for index in (1, 3) for name in ("prompt.yml", "prediction.png")
    }
    assert "masks" not in yaml.safe_load((folder / "debug" / "slice_1_prompt.yml").read_text())
    assert "nan" not in capsys.readouterr().err
    # Its own prompts can be replayed.
    given["output_folder"] = tmp_path / "again"
    assert run_study(study(folder / "debug", with_masks=False, **given)) == 0
    assert np.array_equal(saved_masks(tmp_path / "again" / "image_a"), saved_masks(folder))


def test_a_run_without_masks_is_left_out_of_tables_with_a_warning(study, tmp_path, capsys):
    run_study(study(CLICKS, with_masks=False, save_masks=True))
    results = tmp_path / "results"
    with pytest.raises(InputError, match="no folder has results; see the warnings"):
        join_results(results)
    assert "image_a: has no reference masks in the slices with" in capsys.readouterr().err
    # With masks, but prompts only where there is no lung, it is the same.
    metrics = ("jaccard", "dice", "nsd", "lung_slices_dice")
    clicks = f"{HEADER}\nimage_a,0,positive,1,1,,\n"
    assert run_study(study(clicks, metrics=metrics, output_folder=tmp_path / "empty")) == 0
    with pytest.raises(InputError, match="no folder has results; see the warnings"):
        join_results(tmp_path / "empty")
    run_study(study(CLICKS, output_folder=tmp_path / "with"))
    (tmp_path / "with" / "image_a").rename(results / "image_b")
    report_study([results])
    assert "image_a: has no reference masks" in (results / "report.html").read_text()
    assert join_results(results).volumes["image"].tolist() == ["image_b"]


def test_its_masks_can_be_scored_later(study, tmp_path, capsys):
    metrics = {"metrics": ("jaccard", "dice", "dice_3d")}
    boxes = "".join(f"\nimage_a,{n},box,8,8,32,48,{n}" for n in range(5))
    table = f"{HEADER},seconds{boxes}\n"
    run_study(study(table, output_folder=tmp_path / "with", **metrics))
    run_study(study(table, with_masks=False, save_masks=True))
    given = {
        "image_file_path": [tmp_path / "image_a.nii.gz"],
        "masks_file_path": [tmp_path / "masks_a.nii.gz"],
        "predictions": [tmp_path / "results" / "image_a" / "predicted_masks.nii.gz"],
        "name": "scored",
    }
    assert score_study(ScoreOptions(**given, **metrics, output_folder=tmp_path / "scores")) == 0
    for name in ("raw_data.csv", "results.csv", "empty_slices.csv"):
        scored, measured = (
            (folder / "image_a" / name).read_bytes()
            for folder in (tmp_path / "scores" / "scored", tmp_path / "with")
        )
        assert scored == measured
    run_study(study(CLICKS, with_masks=False, save_masks=True, overwrite=True))
    capsys.readouterr()
    assert score_study(ScoreOptions(**given, output_folder=tmp_path / "partial")) == 1
    assert "its run did not segment slice 2" in capsys.readouterr().err


def test_one_slice(study, tmp_path, capsys):
    run_study(study(CLICKS))
    table = read_raw_data(tmp_path / "results" / "image_a" / "raw_data.csv")
    capsys.readouterr()
    assert run_study(study(CLICKS, slice=3)) == 0
    assert f"Dice score: {table['dice'][3]:.4f}\n" in capsys.readouterr().out
    assert run_study(study(CLICKS, slice=3, with_masks=False)) == 0
    out = capsys.readouterr().out
    assert out == f"the predicted mask has {table['predicted_pixels'][3]} pixels\n"
    assert run_study(study(CLICKS, slice=2)) == 0
    assert "slice 2 has no prompts in the file" in capsys.readouterr().out
    assert run_study(study(RATERS, slice=2)) == 0
    assert capsys.readouterr().out.endswith("bob:\nno prompts\n")


def test_a_killed_run_resumes(study, tmp_path, monkeypatch):
    run_study(study(RATERS, save_masks=True, output_folder=tmp_path / "whole"))
    append, count = UnfinishedRun.append, 0

    def stop(self, *args):
        nonlocal count
        count += 1
        if count > 2:
            raise KeyboardInterrupt
        return append(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedRun, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            run_study(study(RATERS, save_masks=True))
    assert run_study(study(RATERS, save_masks=True)) == 0
    for name in ("ann", "bob"):
        for table in ("raw_data.csv", "results.csv"):
            whole, resumed = (
                (tmp_path / folder / name / "image_a" / table).read_bytes()
                for folder in ("whole", "results")
            )
            assert whole == resumed


def test_several_models_and_kept_embeddings(study, tmp_path, capsys):
    given = {"checkpoint": None, "model": "box,threshold", "save_masks": True}
    boxes = f"{HEADER},rater\nimage_a,1,box,8,8,32,48,ann\nimage_a,0,box,1,1,3,4,ann\n"
    assert run_study(study(boxes, with_masks=False, **given)) == 0
    filled = np.zeros(IMAGE.shape)
    filled[8:32, 8:48, 1] = filled[1:3, 1:4, 0] = 1
    assert np.array_equal(saved_masks(tmp_path / "results" / "box" / "ann" / "image_a"), filled)
    assert (tmp_path / "results" / "threshold" / "ann" / "image_a" / "run.json").exists()
    kept = {"embeddings_folder": tmp_path / "kept", "output_folder": tmp_path / "first"}
    assert run_study(study(CLICKS, **kept)) == 0
    assert run_study(study(CLICKS, **kept | {"output_folder": tmp_path / "second"})) == 0
    first, second = (
        (tmp_path / name / "image_a" / "raw_data.csv").read_bytes() for name in ("first", "second")
    )
    assert first == second


def test_a_dataset_has_its_own_names(study, tmp_path):
    dataset = tmp_path / "dataset.yml"
    dataset.write_text('images: "image_{case}.nii.gz"\nmasks: "masks_{case}.nii.gz"\n')
    given = {"dataset": dataset, "device": "cpu", "model": "threshold"}
    assert run_study(Options(**given, debug=True, output_folder=tmp_path / "first")) == 0
    folder = tmp_path / "first" / "a" / "debug"
    assert run_study(Options(**given, prompts_file=folder)) == 0
    first, again = (
        (tmp_path / name / "a" / "raw_data.csv").read_bytes() for name in ("first", "results")
    )
    assert first == again


@pytest.mark.parametrize(("given", "message"), [
    ({"points": "centroid"}, "--points has no effect with --prompts_file"),
    ({"negative": "none"}, "--negative has no effect"),
    ({"negative_offset": 3}, "--negative_offset has no effect"),
    ({"box": False}, "--no_box has no effect"),
    ({"objects": "apart"}, "--objects has no effect"),
    ({"prompts": ("paper",)}, "--prompts has no effect"),
    ({"prompt_every": (2,)}, "--prompt_every has no effect"),
    ({"empty_slices": "nearest"}, "--empty_slices has no effect"),
    ({"metrics": ("jaccard", "dice", "one_click")}, "leave out --prompts_file"),
    ({"with_masks": False, "metrics": ("jaccard", "dice", "nsd")}, "--metrics needs reference"),
    ({"with_masks": False, "report": True}, "--report needs reference masks"),
    ({"with_masks": False, "labels": ("1",)}, "--labels has no effect without masks; give -m"),
    ({"with_masks": False, "align": "affine"}, "--align has no effect without masks"),
])  # fmt: skip
def test_options_without_effect_are_refused(study, given, message):
    with pytest.raises(InputError, match=message):
        study("", **given)


@pytest.mark.parametrize(("table", "given", "message"), [
    (CLICKS, {"with_masks": False}, "no reference masks; add --save_masks or --debug, or give -m"),
    (RATERS.replace("ann", "figures"), {}, "rater 'figures': its results would be named figures"),
    (RATERS.replace("ann", "vit_b"), {}, "would be named vit_b"),
    (RATERS.replace("ann", "a/b"), {}, "rater 'a/b': results cannot be named after it"),
    (RATERS.replace("ann", ".."), {}, r"rater '\.\.': results cannot be named after it"),
    (RATERS.replace("ann", "image_a"), {}, "rater 'image_a': results cannot be named after it"),
    (RATERS.replace("ann", "a" * 300), {}, "longer than 255 bytes"),
    (RATERS.replace("seconds", "dice"), {}, "the column dice has the name of a column"),
    (RATERS.replace("seconds", "nsd_2mm"), {}, "the column nsd_2mm has the name"),
    (RATERS.replace("seconds", "image"), {}, "the column image has the name"),
    (RATERS.replace("seconds", "interactions"), {}, "the column interactions has the name"),
    (CLICKS, {"model": "box", "checkpoint": None}, "line 2: slice 1 of image_a has prompts withou"),
    (CLICKS, {"model": "medsam"}, "line 2: medsam accepts box prompts only, not points; remove it"),
    (HEADER + "\n", {}, "has no prompts"),
])  # fmt: skip
@pytest.mark.parametrize("start", [run_study, check_study])
def test_other_files_are_refused_before_anything_is_read(
    study, table, given, message, start, monkeypatch
):
    monkeypatch.setattr(registry, "load_segmenters", None)
    with pytest.raises(InputError, match=message) as error:
        start(study(table, **given))
    assert "\n" not in str(error.value)


def test_misplaced_prompts_are_one_line_each(study, tmp_path, capsys):
    table = CLICKS + "image_a,9,positive,1,1,,\nimage_a,2,box,0,0,41,3,,\n".replace(",3,,", ",3")
    assert run_study(study(table)) == 1
    path = tmp_path / "prompts.csv"
    lines = [
        f"{path}, line 4: there is no slice 9; give 0 to 4",
        f"{path}, line 5: the box (0, 0, 41, 3) is not inside the 40 rows and 56 columns of the"
        " slice; rows and columns count from 0",
    ]
    assert capsys.readouterr().err.splitlines() == [f"error: {line}" for line in lines]
    assert not (tmp_path / "results").exists()
    with pytest.raises(InputError, match="1 of 1 volume has faults"):
        check_study(study(table))
    out = capsys.readouterr().out
    assert all(line in out for line in lines)


def test_a_case_without_prompts_is_a_fault(study, tmp_path, capsys):
    table = CLICKS.replace("image_a", "a")
    assert run_study(study(table)) == 1
    warning, error = capsys.readouterr().err.splitlines()
    path = tmp_path / "prompts.csv"
    assert warning == f"warning: {path}: has prompts for 1 other case, such as a"
    assert error.startswith(f"error: {path}: has no prompts for image_a, but for a; write its name")
    with pytest.raises(InputError, match="1 of 1 volume has faults"):
        check_study(study(table))


def test_a_rater_may_lack_a_case(study, tmp_path, capsys):
    save_nifti(tmp_path / "image_b.nii.gz", IMAGE)
    images = [tmp_path / f"image_{name}.nii.gz" for name in "ab"]
    (tmp_path / "t.csv").write_text(RATERS + "image_b,1,positive,1,1,,,bob,5\n")
    given = {"prompts_file": tmp_path / "t.csv", "model": "threshold", "save_masks": True}
    assert run_study(Options(images, **given)) == 0
    assert (
        "rater 'ann': has no prompts for 1 of 2 cases, such as image_b" in capsys.readouterr().err
    )
    results = tmp_path / "results"
    found = {str(path.parent.relative_to(results)) for path in results.rglob("run.json")}
    assert found == {"ann/image_a", "bob/image_a", "bob/image_b"}
    assert run_study(Options(images, **given)) == 0
    assert capsys.readouterr().out.count("finished before, skipped") == 2


@pytest.mark.parametrize("with_masks", [True, False])
def test_the_dry_run_counts_and_rehearses(study, tmp_path, capsys, with_masks):
    given = {"with_masks": with_masks, "save_masks": True}
    assert check_study(study(RATERS, **given)) == 0
    assert "\n3 slices of 1 volume to segment with vit_l: about " in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    run_study(study(RATERS, **given))
    capsys.readouterr()
    assert check_study(study(RATERS, **given)) == 0
    assert "to segment" not in capsys.readouterr().out
    assert check_study(study(RATERS, with_masks=with_masks, slice=2)) == 0
    assert "\n1 slice of 1 volume to" in capsys.readouterr().out


def test_metrics_in_3d_need_prompts_in_all_slices_with_lung(study, tmp_path, capsys):
    given = {"metrics": ("jaccard", "dice", "dice_3d"), "model": "threshold", "checkpoint": None}
    assert run_study(study(CLICKS, **given)) == 1
    assert (
        "has no prompts in slice 2 of image_a, which has reference masks" in capsys.readouterr().err
    )
    table = HEADER + "".join(f"\nimage_a,{n},box,8,8,32,48" for n in range(1, 5)) + "\n"
    assert run_study(study(table, save_masks=True, **given)) == 0
    folder = tmp_path / "results" / "image_a"
    expected = dice(saved_masks(folder) > 0, MASKS > 0)
    assert f"dice_3d,,,{expected}," in (folder / "results.csv").read_text()
