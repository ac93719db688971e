import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from results_folders import RECORD, write_volume

from sam_lungs.study.results import EmptySlice, SliceResult
from sam_lungs.summary import join as join_module
from sam_lungs.summary.join import (
    TABLES,
    JoinedResults,
    check_parquet,
    join_results,
    warn_of_unknown_patients,
    write_tables,
)
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.utils.errors import InputError

SLICES = [
    SliceResult(0, None, None, None, 0, None),
    SliceResult(1, 0.5, 2 / 3, 0.75, 10, 20, 5),
    SliceResult(2, 0.25, 0.4, 0.1, 30, 7, 0),
]


def rows(path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def join(results_folder, output_folder) -> JoinedResults:
    joined = join_results(results_folder)
    write_tables(joined, output_folder)
    return joined


def test_joined_tables_equal_hand_computed_values(tmp_path):
    write_volume(tmp_path / "image_b", SLICES)
    write_volume(tmp_path / "image_a", [SliceResult(0, 1.0, 1.0, 0.9, 5, 5, 5)])
    joined = join(tmp_path, tmp_path)
    assert len(joined.slices) == 4
    assert (tmp_path / "joint_raw_data.csv").read_bytes() == (
        b"image,slice,jaccard,dice,score,lung_pixels,predicted_pixels,interactions\n"
        b"image_a,0,1.0,1.0,0.9,5,5,5\n"
        b"image_b,0,,,,0,,\n"
        b"image_b,1,0.5,0.6666666666666666,0.75,10,20,5\n"
        b"image_b,2,0.25,0.4,0.1,30,7,0\n"
    )
    volumes = pd.read_csv(tmp_path / "joint_results.csv")
    assert volumes["image"].tolist() == ["image_a", "image_b"]
    assert volumes["slices"].tolist() == [1, 3]
    assert volumes["lung_slices"].tolist() == [1, 2]
    assert volumes["jaccard_avg"].tolist() == [1, 0.375]
    assert volumes["dice_max"].tolist() == [1, 2 / 3]
    assert joined.summary["avg"][0] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert volumes["interactions"].tolist() == [5, 5]
    assert volumes["lung_slices_dice"].tolist() == pytest.approx([1, (20 + 0.4 * 37) / 67])
    summary = rows(tmp_path / "results.csv")
    assert summary[1][:3] == ["jaccard", "0.25", "1.0"]
    assert summary[1][-1] == "3"
    assert summary[3][0] == "lung_slices_dice"
    assert summary[4] == ["interactions", "5.0", "5.0", "5.0", "0.0", ""]


def test_parquet_files_hold_the_tables(tmp_path):
    pytest.importorskip("pyarrow")
    check_parquet()
    for image in "abcdefg":
        write_volume(tmp_path / image, SLICES, of_volume={"dice_3d": 0.5})
    joined = join_results(tmp_path)
    write_tables(joined, tmp_path, parquet=True)
    for name, file_name in TABLES.items():
        path = (tmp_path / file_name).with_suffix(".parquet")
        if len(table := getattr(joined, name)):
            assert pd.read_parquet(path).to_csv(index=False) == table.to_csv(index=False)
        assert path.exists() == (name != "empty_slices")


def test_a_parquet_file_of_an_earlier_run_is_removed(tmp_path):
    write_volume(tmp_path / "image", SLICES)
    (tmp_path / "joint_raw_data.parquet").touch()
    join(tmp_path, tmp_path)
    assert not (tmp_path / "joint_raw_data.parquet").exists()


def test_parquet_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(join_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \.\[parquet\]"):
        check_parquet()


def test_metrics_of_whole_volumes_are_joined(tmp_path):
    write_volume(tmp_path / "image_b", SLICES, of_volume={"dice_3d": 0.5, "interactions": 5})
    write_volume(tmp_path / "image_a", SLICES, of_volume={"dice_3d": 0.25, "interactions": 5})
    joined = join(tmp_path, tmp_path)
    assert joined.volumes["dice_3d"].tolist() == [0.25, 0.5]
    assert joined.cases["dice_3d"].tolist() == [0.25, 0.5]
    summary = joined.summary.set_index("metric")
    assert summary.loc["dice_3d", ["min", "max", "avg"]].tolist() == [0.25, 0.5, 0.375]
    interval = joined.intervals.set_index("metric").loc["dice_3d"]
    assert interval[["cases", "volumes", "case_avg", "volume_avg"]].tolist() == [2, 2, 0.375, 0.375]
    assert interval[["slices", "slice_avg"]].isna().all()


def test_joining_twice_gives_the_same_bytes(tmp_path):
    write_volume(tmp_path / "image", SLICES)
    join(tmp_path, tmp_path)
    tables = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    assert len(tables) == 5
    join(tmp_path, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == tables


def test_joining_the_published_tables_gives_the_published_numbers(real_data, tmp_path):
    summary = join(real_data / "published", tmp_path).summary.set_index("metric")
    assert summary.loc["jaccard", ["avg", "std"]].tolist() == [
        0.9027456965588987,
        0.14091775323280256,
    ]
    assert summary.loc["dice", ["avg", "std"]].tolist() == [0.9408425223198368, 0.11014111713012902]
    volumes = pd.read_csv(tmp_path / "joint_results.csv", index_col="image")
    published = pd.read_csv(real_data / "published" / "per_volume.csv", index_col="image")
    published.index = "image_" + published.index
    assert len(volumes) == 10
    for column in ("slices", "lung_slices", "jaccard_avg", "dice_avg"):
        given = published.loc[volumes.index, column]
        np.testing.assert_allclose(volumes[column], given, atol=5e-7)


@pytest.fixture
def all_published(real_data, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    for volume in real_data.glob("published*/image_*"):
        (folder / volume.name).symlink_to(volume)
    return folder


SCAN = r"image_(radiopaedia_\d+|coronacases_\d+).*"


@pytest.mark.parametrize("options", [{"dataset": ROOT / "datasets/paper.yml"}, {"patients": SCAN}])
def test_the_published_tables_have_18_patients_and_their_intervals(all_published, options, capsys):
    joined = join_results(all_published, PatientOptions(**options).read_patients())
    warn_of_unknown_patients([joined])
    assert capsys.readouterr().err == ""
    assert len(joined.cases) == 18
    assert joined.cases.query("volumes == 2")["case"].tolist() == [
        "radiopaedia_10",
        "radiopaedia_29",
    ]
    table = joined.intervals.set_index(["subset", "metric"])
    for metric, values in (
        ("dice", [18, 20, 2973, 0.9494, 0.9369, 0.9220, 0.9523, 0.9410, 0.9268, 0.9540]),
        ("jaccard", [18, 20, 2973, 0.9145, 0.8987, 0.8794, 0.9188, 0.9034, 0.8841, 0.9213]),
    ):
        row = table.loc[("all", metric)].drop(["interactions", "exposure"])
        assert row.astype(float).round(4).tolist() == values
    if "dataset" in options:
        subset = table.loc[("radiopaedia", "dice"), ["cases", "volumes", "volume_low"]]
        assert subset.astype(float).round(4).tolist() == [8, 10, 0.9029]
    assert joined.intervals["subset"].nunique() == (3 if "dataset" in options else 1)


def test_without_patients_each_published_volume_is_one(all_published, capsys):
    joined = join_results(all_published)
    warn_of_unknown_patients([joined])
    assert len(joined.cases) == 20
    assert joined.intervals["subset"].unique().tolist() == ["all"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "the patients of 20 of 20 volumes are not known" in line
    assert "--patients" in line
    assert "--dataset" in line


def write_scans(folder, **patients: tuple[str | None, str | None]) -> None:
    """Write volumes of one slice; Dice is 0.8, 0.7, 0.6, ... in the order of the arguments."""
    for number, (image, (patient, subset)) in enumerate(patients.items()):
        dice = 0.8 - number / 10
        record = replace(RECORD, patient=patient, subset=subset)
        write_volume(folder / image, [SliceResult(0, dice / 2, dice, 0.9, 5, 5)], record)


def test_patients_and_subsets_come_from_the_run_records(tmp_path, capsys):
    write_scans(tmp_path, a=("p", "old"), b=("p", "new"), c=("q", "new"), d=(None, None))
    joined = join(tmp_path, tmp_path)
    cases = joined.cases.set_index("case")
    assert cases["volumes"].to_dict() == {"d": 1, "p": 2, "q": 1}
    assert cases["dice_avg"].to_dict() == pytest.approx({"d": 0.5, "p": 0.75, "q": 0.6})
    assert joined.intervals["subset"].unique().tolist() == ["all", "new", "old"]
    assert rows(tmp_path / "joint_results.csv")[0][-2:] == ["patient", "subset"]
    assert [row[-2:] for row in rows(tmp_path / "joint_results.csv")[1:]] == [
        ["p", "old"],
        ["p", "new"],
        ["q", "new"],
        ["", ""],
    ]
    assert capsys.readouterr().err == ""
    warn_of_unknown_patients([joined])
    assert "the patients of 1 of 4 volumes are not known" in capsys.readouterr().err


def test_one_volume_is_one_patient_without_a_warning(tmp_path, capsys):
    write_volume(tmp_path / "image", SLICES)
    warn_of_unknown_patients([join_results(tmp_path)])
    assert capsys.readouterr().err == ""


def test_a_table_of_patients_replaces_the_records_and_leaves_others_out(tmp_path):
    write_scans(tmp_path, a=("p", "old"), b=("p", "new"), c=("q", "new"))
    table = tmp_path / "patients.csv"
    table.write_text("image,patient,subset\na,p,\nb,r,x\n")
    joined = join_results(tmp_path, PatientOptions(patients=str(table)).read_patients())
    assert joined.volumes["patient"].tolist() == ["p", "r"]
    assert joined.intervals["subset"].unique().tolist() == ["all", "x"]
    assert joined.left_out == [f"{tmp_path / 'c'}: is not in {table}; left out"]


def test_a_pattern_of_patients_replaces_the_records(tmp_path):
    write_scans(tmp_path, p1_1=("a", "old"), p1_2=("b", "new"), other=("q", "new"))
    joined = join_results(tmp_path, PatientOptions(patients=r"(p\d)_.*").read_patients())
    assert joined.cases["case"].tolist() == ["other", "p1"]
    assert joined.intervals["subset"].unique().tolist() == ["all"]


def test_only_the_chosen_cases_of_a_dataset_file_are_joined(tmp_path):
    write_scans(tmp_path / "results", a=("p", "old"), b=("p", "new"), c=("q", "new"))
    dataset = tmp_path / "dataset.yml"
    dataset.write_text("table: cases.csv\n")
    (tmp_path / "cases.csv").write_text("case,image,masks,patient\na,a,m,x\nb,b,n,x\nc,c,o,x\n")
    options = PatientOptions(dataset=dataset, cases=("c", "a"))
    joined = join_results(tmp_path / "results", options.read_patients())
    assert joined.volumes["image"].tolist() == ["a", "c"]
    assert joined.cases["case"].tolist() == ["x"]
    assert joined.left_out == [f"{tmp_path / 'results' / 'b'}: is not in {dataset}; left out"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"cases": ("a",)}, "add --dataset"),
        ({"patients": "(.)", "dataset": ROOT / "datasets/paper.yml"}, "leave out --patients"),
        ({"patients": "("}, "neither a CSV file nor a regular expression"),
        ({"patients": "p.*"}, "needs a group"),
        ({"patients": "missing.csv"}, "missing.csv: no such file"),
        ({"dataset": ROOT / "datasets/paper.yml", "cases": ("image_corona",)}, "no case"),
    ],
)
def test_wrong_patients_are_refused(options, part):
    with pytest.raises(InputError, match=part.replace(".", r"\.")):
        PatientOptions(**options).read_patients()


def test_a_table_of_other_volumes_is_refused(tmp_path):
    write_volume(tmp_path / "image_a", SLICES)
    table = tmp_path / "patients.txt"
    table.write_text("image,patient\na,p\n")
    with pytest.raises(InputError, match=r"none of its volumes is in .*patients\.txt"):
        join_results(tmp_path, PatientOptions(patients=str(table)).read_patients())


def test_a_table_with_a_volume_twice_is_refused(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("image,patient\na,p\na,q\n")
    with pytest.raises(InputError, match="row 2: a is there twice"):
        PatientOptions(patients=str(table)).read_patients()


def test_volumes_called_figures_and_small_are_joined(tmp_path):
    write_scans(tmp_path, figures=("p", None), small=("p", None), image_small=("q", None))
    (tmp_path / "figures" / "boxes.svg").touch()
    joined = join_results(tmp_path)
    assert joined.volumes["image"].tolist() == ["figures", "image_small", "small"]
    assert joined.left_out == []


def test_the_last_of_several_published_tables_is_used(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    for time, value in (("2023-05-27_09-43-55", 0.5), ("2023-05-28_08-00-00", 0.75)):
        (folder / f"raw_data_{time}.csv").write_text(f"slice,jaccard,dice\n0,{value},{value}\n")
        (folder / f"results_{time}.csv").write_text("")
    assert join_results(tmp_path).summary["avg"].tolist() == [0.75, 0.75]


def test_slices_without_lung_have_their_own_table(tmp_path):
    found = [EmptySlice(0, 2, 0, 0.0), EmptySlice(1, 2, 10, 5.0)]
    write_volume(tmp_path / "image_a", SLICES, empty_slices=found)
    write_volume(tmp_path / "image_b", SLICES)
    joined = join(tmp_path, tmp_path)
    assert rows(tmp_path / "joint_empty_slices.csv") == [
        [
            "image",
            "slices_without_lung",
            "with_false_positives",
            "pixels_avg",
            "mm2_avg",
            "mm2_max",
        ],
        ["image_a", "2", "1", "5.0", "2.5", "5.0"],
    ]
    assert joined.volumes["dice_avg"][0] == joined.volumes["dice_avg"][1]
    write_volume(tmp_path / "image_a", SLICES)
    join(tmp_path, tmp_path)
    assert not (tmp_path / "joint_empty_slices.csv").exists()


def test_a_metric_of_some_volumes_is_averaged_over_those(tmp_path):
    with_surface = [replace(one, more={"nsd_1mm": 0.5}) for one in SLICES[1:]]
    write_volume(tmp_path / "image_a", with_surface)
    write_volume(tmp_path / "image_b", SLICES)
    of_nsd = join(tmp_path, tmp_path).intervals.query("metric == 'nsd_1mm'").iloc[0]
    assert of_nsd[["volumes", "slices", "slice_avg"]].tolist() == [1, 2, 0.5]


def test_our_own_table_is_preferred_to_a_published_one(tmp_path):
    folder = tmp_path / "image"
    write_volume(folder, SLICES)
    (folder / "raw_data_2023-05-27_09-43-55.csv").write_text("slice,jaccard,dice\n0,0.1,0.2\n")
    assert join_results(tmp_path).summary["avg"][0] == 0.375


def test_folders_without_finished_results_are_left_out_with_a_warning(tmp_path, capsys):
    for name in ("image", "killed", "restarted"):
        write_volume(tmp_path / name, SLICES)
    (tmp_path / "killed" / "run.json").unlink()
    (tmp_path / "restarted" / "raw_data.csv").unlink()
    for name in (
        "begun/unfinished",
        "empty",
        "figures",
        "image/unfinished",
        "restarted/unfinished",
    ):
        (tmp_path / name).mkdir(parents=True)
    left_out = join(tmp_path, tmp_path).left_out
    assert capsys.readouterr().err == "".join(f"warning: {problem}\n" for problem in left_out)
    unfinished = "its run is unfinished; rerun the same command to resume; left out"
    assert left_out == [
        f"{tmp_path / 'begun'}: {unfinished}",
        f"{tmp_path / 'empty'}: has no raw_data.csv; left out",
        f"{tmp_path / 'killed'}: {unfinished}",
        f"{tmp_path / 'restarted'}: {unfinished}",
    ]
    assert len(pd.read_csv(tmp_path / "joint_results.csv")) == 1


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "slice,jaccard,dice\nx,y,z\n", "\0\xff\n"])
def test_a_changed_or_invalid_table_is_refused(tmp_path, text):
    write_volume(tmp_path / "ours" / "image_a", SLICES)
    write_volume(tmp_path / "ours" / "image_b", SLICES)
    (tmp_path / "ours" / "image_b" / "raw_data.csv").write_text(text)
    with pytest.raises(InputError, match=r"image_b.*changed since its run"):
        join_results(tmp_path / "ours")
    (tmp_path / "theirs" / "image_c").mkdir(parents=True)
    (tmp_path / "theirs" / "image_c" / "raw_data_2023-05-27_09-43-55.csv").write_text(text)
    with pytest.raises(InputError, match=r"image_c.*not a table of slices"):
        join_results(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["raw_data.csv", "results.csv", "empty_slices.csv"])
def test_a_changed_or_missing_file_that_is_read_is_refused(tmp_path, name):
    write_volume(tmp_path / "image", SLICES, empty_slices=[EmptySlice(0, 2, 0, 0.0)])
    path = tmp_path / "image" / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(InputError, match=rf"{name}: missing, or changed since its run"):
        join_results(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}: missing, or changed since its run"):
        join_results(tmp_path)


def test_files_that_are_not_read_are_neither_needed_nor_kept_in_memory(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "predicted_masks.nii.gz").write_bytes(b"masks")
    write_volume(folder, SLICES, replace(RECORD, command=["process_image.py", "-i", "a", "b"]))
    (folder / "predicted_masks.nii.gz").unlink()
    joined = join_results(tmp_path)
    assert joined.summary["slices"][0] == 2
    assert list(joined.records["image"].files) == ["raw_data.csv", "results.csv"]
    assert joined.records["image"].command == []


def test_folders_without_volumes_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=str(folder)):
            join_results(folder)


def test_a_folder_of_several_runs_names_them(tmp_path):
    for run in ("no_box", "vit_l/paper"):
        for image in ("a", "b"):
            write_volume(tmp_path / run / image, SLICES)
    with pytest.raises(InputError) as raised:
        join_results(tmp_path)
    runs = f"-r {tmp_path}/no_box or -r {tmp_path}/vit_l/paper"
    assert str(raised.value) == f"{tmp_path}: no folder has results; give one of its runs: {runs}"
    assert len(join_results(tmp_path / "vit_l/paper").volumes) == 2


def test_a_volume_whose_name_is_not_utf_8_is_refused_before_it_is_drawn(tmp_path):
    """pandas and matplotlib fail with a traceback, each in its own place."""
    write_volume(tmp_path / "a", SLICES)
    write_volume(tmp_path / "b\udcff", SLICES)
    with pytest.raises(InputError, match="its name is not UTF-8"):
        join_results(tmp_path)
