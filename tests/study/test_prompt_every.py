"""Whole studies with --prompt_every: prompts that are interpolated between slices."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol
from sam_lungs.prompts.volume import VolumePrompts
from sam_lungs.segmenters import checkpoints, registry
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.dry_run import check_study
from sam_lungs.study.metrics import dice
from sam_lungs.study.options import Options
from sam_lungs.study.recorder import Recorder
from sam_lungs.study.results import read_empty_slices, read_raw_data
from sam_lungs.study.run import run_study
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.setup import prepare
from sam_lungs.study.unfinished import UnfinishedRun
from sam_lungs.utils.errors import InputError

# Lung in slices 1, 2, 3, 5, 6, 7 of 9.
IMAGE, MASKS = chest(slices=9)
for without_lung in (4, 8):
    IMAGE[..., without_lung], MASKS[..., without_lung] = IMAGE[..., 0], MASKS[..., 0]
SLICES_OF_LABELS = {1: [1, 2, 3, 5, 6, 7], 2: [1, 2, 3, 5, 6, 7]}
TABLES = ("raw_data.csv", "results.csv")


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Return the options of a study of one volume with a tiny SAM."""
    weights = tmp_path / "tiny.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(checkpoints, "load_sam", lambda name, path: tiny_sam())
    registry.identify.cache_clear()
    images = [save_nifti(tmp_path / "image_a.nii.gz", IMAGE)]
    masks = [save_nifti(tmp_path / "masks_a.nii.gz", MASKS)]

    def options(**given) -> Options:
        return Options(images, masks, checkpoint=weights, device="cpu", **given)

    return options


def volume_prompts(protocol: PromptProtocol, *options: str) -> VolumePrompts:
    return VolumePrompts(MASKS, SLICES_OF_LABELS, protocol, *(options or ("together",)))


def test_k_of_1_is_the_run_without_the_option(study, tmp_path):
    given = {"prompts": ("paper", "contours_no_box"), "empty_slices": "nearest"}
    run_study(study(output_folder=tmp_path / "without", **given))
    run_study(study(output_folder=tmp_path / "one", prompt_every=(1,), **given))
    run_study(study(output_folder=tmp_path / "several", prompt_every=(3, 1), **given))
    for name in given["prompts"]:
        for table in (*TABLES, "empty_slices.csv"):
            without, one, several = (
                (tmp_path / folder / "image_a" / table).read_bytes()
                for folder in (f"without/{name}", f"one/{name}", f"several/{name}_every_1")
            )
            assert without == one == several


@pytest.mark.parametrize("objects", ["together", "apart"])
def test_several_k_record_their_own_slices_and_predictions(study, tmp_path, monkeypatch, objects):
    interactions, add = {}, Recorder.add

    def note(self, segmented, number, *args):
        at = (number, segmented.prompted.index)
        interactions[at] = segmented.prompted.interactions[number]
        add(self, segmented, number, *args)

    monkeypatch.setattr(Recorder, "add", note)
    study_of_three = study(prompt_every=(1, 2, 5), objects=objects, batch_size=4, save_masks=True)
    assert run_study(study_of_three) == 0
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    for number, every in enumerate((1, 2, 5)):
        folder = tmp_path / "results" / f"every_{every}" / "image_a"
        prompts = volume_prompts(PromptProtocol(every=every), objects)
        table = read_raw_data(folder / "raw_data.csv").set_index("slice")
        assert table.index[table["dice"].notna()].tolist() == SLICES_OF_LABELS[1]
        assert (folder / "empty_slices.csv").exists() == (every > 1)
        assert RunRecord.read(folder).protocol["every"] == every
        for index in prompts.sources:
            rgb = slice_to_rgb(IMAGE[..., index], LUNG_WINDOW)
            united, drawn = prompts.at(index)
            assert interactions.pop((number, index)) == drawn
            masks = [segment(segmenter, rgb, each).mask for each in united]
            predicted = np.any(masks, axis=0)
            if index == 4:
                (row,) = read_empty_slices(folder).itertuples()
                assert (row.slice, row.predicted_pixels) == (4, predicted.sum())
                assert pd.isna(row.prompted_as)
                continue
            assert table.loc[index, "dice"] == dice(predicted, MASKS[..., index] > 0)
    assert interactions == {}
    paths = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert paths == ["every_1", "every_2", "every_5"]


def test_slices_outside_of_the_object_have_the_prompts_of_its_first_or_last_one(study, tmp_path):
    run_study(study(prompt_every=(2,), empty_slices="nearest"))
    table = read_empty_slices(tmp_path / "results" / "image_a")
    assert table["slice"].tolist() == [0, 4, 8]
    assert table["prompted_as"].fillna(-1).tolist() == [1, -1, 7]


def test_the_prompts_that_debug_writes_are_those_that_were_used(study, tmp_path):
    run_study(study(prompt_every=(1, 5), debug=True, slice=4))
    (path,) = (tmp_path / "debug").rglob("*.yml")
    assert path.parent.parent.name == "every_5"
    prompt = yaml.safe_load(path.read_text())
    (found,) = volume_prompts(PromptProtocol(every=5)).at(4).united
    points = [[each["row"], each["column"], each["label"]] for each in prompt["points"]]
    assert points == np.column_stack([found.points_rc, found.labels]).tolist()
    corners = [prompt["box"][name] for name in ("row_min", "column_min", "row_max", "column_max")]
    assert corners == found.box_rc.tolist()


def test_one_slice_gets_its_interpolated_prompts(study, tmp_path, capsys):
    run_study(study(prompt_every=(1, 5)))
    capsys.readouterr()
    run_study(study(prompt_every=(1, 5), slice=3))
    out = capsys.readouterr().out
    for every in (1, 5):
        table = read_raw_data(tmp_path / "results" / f"every_{every}" / "image_a" / "raw_data.csv")
        assert f"every_{every}:\nJaccard index: {table['jaccard'][3]:.4f}\n" in out
    run_study(study(prompt_every=(1, 5), slice=4))
    out = capsys.readouterr().out
    assert "every_1:\nno lung, so no prompts\nevery_5:\nno lung, but the predicted mask has" in out
    run_study(study(prompt_every=(1, 5), slice=8))
    assert "slice 8 has no lung, so no prompts" in capsys.readouterr().out


def test_a_killed_run_resumes_with_the_slices_that_each_k_lacks(study, tmp_path, monkeypatch):
    run_study(study(prompt_every=(5, 1), output_folder=tmp_path / "whole"))
    append, count = UnfinishedRun.append, 0

    def stop(self, *args):
        nonlocal count
        count += 1
        if count > 7:
            raise KeyboardInterrupt
        return append(self, *args)

    monkeypatch.setattr(UnfinishedRun, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        run_study(study(prompt_every=(5, 1)))
    monkeypatch.undo()
    monkeypatch.setattr(checkpoints, "load_sam", lambda name, path: tiny_sam())
    assert run_study(study(prompt_every=(5, 1))) == 0
    for every in (1, 5):
        folders = [tmp_path / name / f"every_{every}" / "image_a" for name in ("whole", "results")]
        for table in TABLES:
            whole, resumed = ((folder / table).read_bytes() for folder in folders)
            assert whole == resumed
    whole, resumed = (
        (tmp_path / name / "every_5" / "image_a" / "empty_slices.csv").read_bytes()
        for name in ("whole", "results")
    )
    assert whole == resumed


def test_the_dry_run_counts_the_slices_of_all_k(study, capsys):
    def to_do(**given) -> int:
        assert check_study(study(**given)) == 0
        return int(capsys.readouterr().out.splitlines()[1].split()[-3])

    assert to_do() == 6
    assert to_do(prompt_every=(5,)) == 7
    assert to_do(prompt_every=(1, 5)) == 7
    assert to_do(prompt_every=(5,), empty_slices="nearest") == 9
    assert to_do(prompt_every=(5,), slice=4) == 1
    assert to_do(slice=4) == 0
    run_study(study(prompt_every=(1, 5)))
    capsys.readouterr()
    assert to_do(prompt_every=(1, 5)) == 0
    assert to_do(prompt_every=(1, 5, 3)) == 7


def test_a_run_from_before_the_option_counts_as_k_of_1(study, tmp_path, capsys):
    run_study(study())
    path = tmp_path / "results" / "image_a" / "run.json"
    content = json.loads(path.read_text())
    del content["protocol"]["every"]
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert run_study(study()) == 0
    assert "finished before, skipped" in capsys.readouterr().out
    assert run_study(study(prompt_every=(2,))) == 1
    assert "holds another run (prompts: every 1 there, 2 now)" in capsys.readouterr().err


def test_protocols_are_named_by_k_when_there_are_several():
    pair = [Path("image.npy")], [Path("masks.npy")]
    assert Options(*pair, prompt_every=(5,)).protocols == {"": PromptProtocol(every=5)}
    assert Options(*pair, prompt_every=(1, 5)).protocols == {
        "every_1": PromptProtocol(),
        "every_5": PromptProtocol(every=5),
    }
    several = Options(*pair, prompts=("paper", "no_box"), prompt_every=(1, 5), model="vit_l,vit_b")
    assert several.protocols == {
        f"{name}_every_{every}": replace(PROTOCOLS[name], every=every)
        for name in ("paper", "no_box")
        for every in (1, 5)
    }
    assert list(several.for_each_model()[1].protocols)[-1] == "vit_b/no_box_every_5"


def test_one_click_needs_prompts_in_every_slice():
    with pytest.raises(InputError, match=r"needs prompts in every slice; leave --prompt_every out"):
        Options(
            [Path("image.npy")],
            [Path("masks.npy")],
            prompts=("points",),
            objects="apart",
            metrics=("jaccard", "dice", "one_click"),
            prompt_every=(1, 5),
        )


@pytest.mark.parametrize("name", ["every_5", "paper_every_10"])
def test_a_case_with_the_name_of_a_protocol_is_refused(name):
    paths = [Path(f"{name}.npy")], [Path("masks.npy")]
    with pytest.raises(InputError, match=f"its results would be named {name}, which is the name"):
        prepare(Options(*paths, device="cpu"))
