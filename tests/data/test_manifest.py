"""Dataset files, on generated trees of empty files."""

import csv
import os
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_lungs.data.case_files import Reading
from sam_lungs.data.manifest import KEYS, read_dataset
from sam_lungs.utils.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Write a dataset file and empty files beside it; a name that ends in `/` is a folder."""

    def write(keys, *names: str) -> Path:
        for name in names:
            path = tmp_path / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.touch()
        path = tmp_path / "dataset.yml"
        path.write_text(keys if isinstance(keys, str) else yaml.safe_dump(keys))
        return path

    return write


def found(path: Path, cases=None) -> dict[str, list[str]]:
    """Return {case: its image and masks, relative to the dataset file}; there are no problems."""
    dataset = read_dataset(path, cases)
    assert dataset.problems == []
    return {
        case.name: [
            each.relative_to(path.parent).as_posix()
            for each in (case.image_path, *case.masks_paths)
        ]
        for case in dataset.cases
    }


def refused(path: Path, cases=None) -> str:
    with pytest.raises(InputError) as error:
        read_dataset(path, cases)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


# Layouts


def test_zenodo_3757476(tmp_path):
    shipped = (ROOT / "datasets/zenodo_3757476.yml").read_text()
    names = ("coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3")
    for folder in ("COVID-19-CT-Seg_20cases", "Lung_Mask"):
        (tmp_path / "zenodo" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "zenodo" / folder / f"{name}.nii.gz").touch()
    (tmp_path / "dataset.yml").write_text(shipped)
    assert found(tmp_path / "dataset.yml") == {
        name: [f"zenodo/COVID-19-CT-Seg_20cases/{name}.nii.gz", f"zenodo/Lung_Mask/{name}.nii.gz"]
        for name in names
    }
    cases = read_dataset(tmp_path / "dataset.yml").cases
    assert [case.patient for case in cases] == ["coronacases_001", *["radiopaedia_10"] * 2]
    assert [case.subset for case in cases] == ["coronacases", *["radiopaedia"] * 2]
    assert {case.root for case in cases} == {tmp_path / "zenodo"}
    assert cases[0].reading == Reading(align="voxels")


def test_the_paper_is_the_twenty_converted_volumes_of_eighteen_patients():
    dataset = read_dataset(ROOT / "datasets/paper.yml")
    assert dataset.problems == []
    assert len(dataset.cases) == 20
    for case in dataset.cases:
        volume = case.name.removeprefix("image_")
        assert case.image_path == ROOT / f"working_data/image_{volume}.npy"
        assert case.masks_paths == (ROOT / f"working_data/masks_{volume}.npy",)
        subset, number = volume.split("_")[:2]
        assert (case.subset, case.patient) == (subset, f"{subset}_{number}")
        assert case.reading == Reading(align="voxels")
    assert len({case.patient for case in dataset.cases}) == 18
    assert {case.root for case in dataset.cases} == {ROOT / "working_data"}


def test_the_two_shipped_files_agree_on_patients_and_subsets():
    keys = yaml.safe_load((ROOT / "datasets/zenodo_3757476.yml").read_text())
    for case in read_dataset(ROOT / "datasets/paper.yml").cases:
        volume = case.name.removeprefix("image_")
        patient = re.fullmatch(keys["patient"], volume)
        assert (patient[1] if patient else volume) == case.patient
        assert re.fullmatch(keys["subset"], volume)[1] == case.subset


def test_nnunet_v2(write):
    path = write(
        {
            "images": "imagesTr/{case}_0000.nii.gz",
            "masks": "labelsTr/{case}.nii.gz",
            "labels": {"left": 1, "right": [2]},
        },
        *("dataset.json", "imagesTr/lung_001_0000.nii.gz", "imagesTr/lung_001_0001.nii.gz"),
        *("imagesTs/lung_003_0000.nii.gz", "labelsTr/lung_001.nii.gz"),
        *("labelsTr/lung_002.nii.gz", "imagesTr/lung_002_0000.nii.gz"),
    )
    assert found(path) == {
        name: [f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"]
        for name in ("lung_001", "lung_002")
    }
    assert read_dataset(path).cases[0].reading.objects == {"left": (1,), "right": (2,)}


def test_msd(write):
    names = [f"{folder}/{name}" for folder in ("imagesTr", "labelsTr") for name in ("a", "._a")]
    path = write(
        {"images": "imagesTr/{case}.nii.gz", "masks": "labelsTr/{case}.nii.gz"},
        *(f"{name}.nii.gz" for name in names),
    )
    assert found(path) == {"a": ["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"]}


def test_totalsegmentator(write):
    lobes = ["lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right"]
    path = write(
        {
            "images": "{case}/ct.nii.gz",
            "masks": "{case}/segmentations/{object}.nii.gz",
            "objects": {"left": lobes[:2], "right": lobes[2]},
        },
        *("meta.csv", "s0001/ct.nii.gz", "s0000/ct.nii.gz"),
        *(
            f"{case}/segmentations/{structure}.nii.gz"
            for case in ("s0000", "s0001")
            for structure in (*lobes, "heart")
        ),
    )
    assert found(path) == {
        case: [f"{case}/ct.nii.gz", *(f"{case}/segmentations/{lobe}.nii.gz" for lobe in lobes)]
        for case in ("s0000", "s0001")
    }
    assert read_dataset(path).cases[1].reading.objects == {"left": (1, 2), "right": (3,)}


def test_bids(write):
    path = write(
        {
            "images": "sub-{case}/ct/sub-{case}_ct.nii.gz",
            "masks": "derivatives/lungs/sub-{case}/ct/sub-{case}_desc-lungs_mask.nii.gz",
        },
        *("sub-01/ct/sub-01_ct.nii.gz", "sub-01/ct/sub-02_ct.nii.gz", "participants.tsv"),
        "derivatives/lungs/sub-01/ct/sub-01_desc-lungs_mask.nii.gz",
    )
    masks = "derivatives/lungs/sub-01/ct/sub-01_desc-lungs_mask.nii.gz"
    assert found(path) == {"01": ["sub-01/ct/sub-01_ct.nii.gz", masks]}


def test_bids_with_sessions(write):
    scans = ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1")
    path = write(
        {
            "images": "sub-*/ses-*/ct/{case}_ct.nii.gz",
            "masks": "derivatives/lungs/sub-*/ses-*/ct/{case}_mask.nii.gz",
            "patient": "(sub-[^_]+)_.*",
        },
        *(f"{scan.replace('_', '/')}/ct/{scan}_ct.nii.gz" for scan in scans),
        *(f"derivatives/lungs/{scan.replace('_', '/')}/ct/{scan}_mask.nii.gz" for scan in scans),
    )
    assert list(found(path)) == list(scans)
    assert [case.patient for case in read_dataset(path).cases] == ["sub-01", "sub-01", "sub-02"]


def test_montgomery(write):
    names = [f"MCUCXR_000{number}_0" for number in (1, 2)]
    folders = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
    path = write(
        {
            "images": "CXR_png/{case}.png",
            "masks": "ManualMask/{object}/{case}.png",
            "objects": {"left": ["leftMask"], "right": ["rightMask"]},
            "window": "none",
        },
        *("CXR_png/Thumbs.db", "NLM-MontgomeryCXRSet-ReadMe.pdf"),
        *(f"{folder}/{name}.png" for folder in folders for name in names),
    )
    assert found(path) == {name: [f"{folder}/{name}.png" for folder in folders] for name in names}
    reading = Reading(window="none", objects={"left": (1,), "right": (2,)})
    assert read_dataset(path).cases[0].reading == reading


def test_folders_of_dicom_files(write):
    path = write(
        {"images": "{case}/dicom", "masks": "{case}/lungs.nii.gz", "spacing_mm": [1, 0.5]},
        *("p1/dicom/1.dcm", "p1/lungs.nii.gz", "p2/dicom/", "p2/lungs.nii.gz"),
    )
    assert found(path)["p2"] == ["p2/dicom", "p2/lungs.nii.gz"]
    assert read_dataset(path).cases[0].reading.spacing_mm == (1, 0.5)


def test_a_table_in_place_of_patterns(write, tmp_path):
    path = write(
        {"table": "cases.csv", "root": "scans", "patient": "(.)_.*"},
        "scans/",
    )
    (tmp_path / "cases.csv").write_text(
        "case,image,masks,patient,subset\n"
        "b_1,x/b.npy,x/left.npy; x/right.npy,,old\n"
        f'"a, 2",{tmp_path}/a.npy,m.npy,P7,\n'
    )
    assert found(path) == {
        "b_1": ["scans/x/b.npy", "scans/x/left.npy", "scans/x/right.npy"],
        "a, 2": ["a.npy", "scans/m.npy"],
    }
    b, a = read_dataset(path).cases
    assert (b.patient, b.subset, a.patient, a.subset) == ("b", "old", "P7", None)


# Rules


IMAGES_AND_MASKS = {"images": "{case}.nii", "masks": "{case}_seg.nii"}


def test_labels_are_not_for_a_table_with_a_masks_file_per_object(write, tmp_path):
    table = tmp_path / "cases.csv"
    keys = {"table": table.name, "labels": [10, 11]}
    table.write_text("case,image,masks\none,1.npy,a.npy\n")
    (case,) = read_dataset(write(keys)).cases
    assert case.reading.objects == {"10": (10,), "11": (11,)}
    table.write_text("case,image,masks\none,1.npy,a.npy\ntwo,2.npy,l.npy;r.npy\n")
    assert "but case two has several" in refused(write(keys))


def test_a_file_that_matches_both_patterns_is_a_mask(write):
    names = ("a.nii", "a_seg.nii", "b_c.nii", "b_c_seg.nii")
    assert found(write(IMAGES_AND_MASKS, *names)) == {
        "a": ["a.nii", "a_seg.nii"],
        "b_c": ["b_c.nii", "b_c_seg.nii"],
    }


def test_an_image_without_masks_and_the_reverse_are_problems(write, tmp_path):
    path = write(IMAGES_AND_MASKS, "a.nii", "a_seg.nii", "b.nii", "c_seg.nii")
    dataset = read_dataset(path)
    assert [case.name for case in dataset.cases] == ["a"]
    assert dataset.problems == [
        f"{tmp_path}/b.nii: an image without masks, no {tmp_path}/b_seg.nii",
        f"{tmp_path}/c_seg.nii: masks without an image, no {tmp_path}/c.nii",
    ]
    assert list(found(path, ["a"])) == ["a"]
    assert "b_seg.nii" in refused(path, ["a", "b"])


def test_a_case_that_lacks_one_structure_is_a_problem(write, tmp_path):
    keys = {"images": "{case}.nii", "masks": "{object}/{case}", "objects": {"lungs": ["l", "r"]}}
    path = write(keys, "a.nii", "l/a", "r/a", "b.nii", "l/b")
    (problem,) = read_dataset(path).problems
    assert problem.endswith(f"no {tmp_path}/r/b")


def test_an_incomplete_row_of_a_table_is_a_problem(write, tmp_path):
    path = write({"table": "cases.csv"})
    (tmp_path / "cases.csv").write_text("case,image,masks\na,a,\nb,,b\nc,c,c\n")
    assert read_dataset(path).problems == [
        f"{tmp_path}/cases.csv, row 1: case a has no masks",
        f"{tmp_path}/cases.csv, row 2: case b has no image",
    ]


def test_chosen_cases_keep_the_order_of_the_file(write):
    path = write(IMAGES_AND_MASKS, *(f"{name}{end}.nii" for name in "cab" for end in ("", "_seg")))
    assert list(found(path)) == ["a", "b", "c"]
    assert list(found(path, ["c", "a"])) == ["a", "c"]
    assert "'d'; there are a, b, c" in refused(path, ["d"])


def test_a_case_that_no_pattern_matches_is_a_patient_without_a_subset(write):
    keys = IMAGES_AND_MASKS | {"patient": r"(p\d)(?:_\d)?", "subset": "p(.).*"}
    path = write(keys, *(f"{name}{end}.nii" for name in ("p1_2", "x") for end in ("", "_seg")))
    of = [(case.patient, case.subset) for case in read_dataset(path).cases]
    assert of == [("p1", "1"), ("x", None)]
    path = write(IMAGES_AND_MASKS)
    assert {case.patient for case in read_dataset(path).cases} == {None}


def test_special_characters_of_globs_are_plain_text(write):
    keys = {"images": "[CT]?/{case}.nii", "masks": "m.+/{case}.nii"}
    path = write(keys, "[CT]?/a.nii", "m.+/a.nii", "C/a.nii", "mm/a.nii")
    assert found(path) == {"a": ["[CT]?/a.nii", "m.+/a.nii"]}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab.-_ é[]*", min_size=1, max_size=6), min_size=1, unique=True))
def test_every_name_is_found_with_its_own_masks(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("dataset")
    names = sorted(name for name in names if not name.startswith("."))
    for name in names:
        (folder / f"image {name}").mkdir()
        (folder / f"image {name}" / f"{name}.nii").touch()
        (folder / f"{name}.seg.nii").touch()
    path = folder / "dataset.yml"
    path.write_text(yaml.safe_dump({"images": "*/{case}.nii", "masks": "{case}.seg.nii"}))
    if names:
        assert found(path) == {
            name: [f"image {name}/{name}.nii", f"{name}.seg.nii"] for name in names
        }


# Errors


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"maks": "{case}"}, ("unknown key 'maks'", "did you mean masks?")),
        ({5: "{case}"}, ("unknown key 5", "there are images, masks, root")),
        ({"images": None}, ("images is None", KEYS["images"][1])),
        ({"images": "a.nii"}, ("images must hold {case}",)),
        ({"images": "{case}{object}"}, ("images must hold {case}", "'{case}{object}'")),
        ({"masks": "{case}/{object}"}, ("masks must hold {case}", "key objects")),
        ({"masks": "{cases}"}, ("masks must hold {case}", "'{cases}'")),
        ({"objects": {"left": ["a"]}}, ("masks must hold {case} and {object}",)),
        ({"labels": {"left": ["a"]}}, ("labels is", KEYS["labels"][1])),
        ({"labels": {"left": []}}, ("labels is", KEYS["labels"][1])),
        ({"labels": {}}, ("labels is", KEYS["labels"][1])),
        ({"labels": [0]}, ("labels is [0]", KEYS["labels"][1])),
        ({"labels": [True]}, ("labels is [True]", KEYS["labels"][1])),
        ({"labels": {True: [1]}}, ("labels is", KEYS["labels"][1])),
        ({"labels": {"left": [1], "right": [1, 2]}}, ("labels has an item twice",)),
        ({"window": "soft"}, ("window is 'soft'", "auto, lung, none")),
        ({"window": 400}, ("window is 400",)),
        ({"align": "affines"}, ("align is 'affines'", "auto, affine, voxels")),
        ({"spacing_mm": [1]}, ("spacing_mm is [1]", KEYS["spacing_mm"][1])),
        ({"spacing_mm": [1, -1]}, ("spacing_mm is [1, -1]",)),
        ({"spacing_mm": [1, float("nan")]}, ("spacing_mm is [1, nan]",)),
        ({"patient": "("}, ("patient is not a regular expression",)),
        ({"patient": "a.*"}, ("patient needs a group", KEYS["patient"][1])),
        ({"root": "missing"}, ("missing: no such folder", "scripts/download_dataset.sh")),
        (
            {"images": "{case}.mha", "masks": "{case}.mhd"},
            ("nothing in", "'{case}.mha'", "download"),
        ),
        ({"table": "cases.csv"}, ("table is in place of images",)),
    ],
)
def test_a_wrong_key_is_one_line(write, change, parts):
    message = refused(write(IMAGES_AND_MASKS | change, "a.nii", "a_seg.nii"))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("key", ["images", "masks"])
def test_a_missing_key_is_named(write, key):
    keys = {name: value for name, value in IMAGES_AND_MASKS.items() if name != key}
    assert f"has no {key}; write {key}: " in refused(write(keys))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no `key: value` lines"),
        ("- a\n", "no `key: value` lines"),
        ("images: {case}/ct.nii.gz\n", "between single quotes"),
        ('patient: "(a_\\d+)"\n', "between single quotes"),
        ("images: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        ("[" * 1000, "is not YAML"),
        ("images: 2001-99-99\n", "is not YAML"),
    ],
)
def test_text_that_is_no_dataset_is_one_line(write, text, part):
    assert part in refused(write(text))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    assert "no such file" in refused(tmp_path / "missing.yml")
    assert "not a regular file" in refused(tmp_path)
    (tmp_path / "latin.yml").write_bytes(b"images: '\xe9{case}'\n")
    assert "UTF-8" in refused(tmp_path / "latin.yml")


def test_two_images_of_one_case_are_refused(write, tmp_path):
    keys = {"images": "*/{case}.nii", "masks": "{case}_seg.nii"}
    message = refused(write(keys, "x/a.nii", "y/a.nii", "a_seg.nii"))
    assert f"{tmp_path}/x/a.nii and {tmp_path}/y/a.nii are both case 'a'" in message


@pytest.mark.parametrize("name", [b"\xff", b"a\nb"])
def test_a_name_that_is_no_text_is_refused(write, tmp_path, name):
    os.close(os.open(os.fsencode(tmp_path) + b"/" + name + b".nii", os.O_CREAT))
    assert "rename it" in refused(write(IMAGES_AND_MASKS))


def test_a_case_whose_results_folder_would_be_hidden_is_refused(write):
    assert "'.a'" in refused(write({"images": "ct{case}", "masks": "m{case}"}, "ct.a", "m.a"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "must have the columns case,image,masks"),
        ("case,image\na,b\n", "must have the columns case,image,masks"),
        ("case;image;masks\n", "unknown column 'case;image;masks'"),
        ("case,image,masks,patien\n", "did you mean patient?"),
        ("case,image,masks\n", "has no case"),
        ("case,image,masks\na,b\n", "row 1: has not 3 cells"),
        ("case,image,masks\na,b,c,d\n", "row 1: has not 3 cells"),
        ("case,image,masks\na,b,c\na,d,e\n", "row 2: this case or its image is there twice"),
        ("case,image,masks\na,b,c\nd,b,e\n", "row 2: this case or its image is there twice"),
        ("case,image,masks\na/b,b,c\n", "'a/b'"),
        ("case,image,masks\n..,b,c\n", "'..'"),
        (f"case,image,masks\n{'a' * 200_000},b,c\n", "not a CSV table"),
        ("case,image,masks\n,,\n", "rename the case"),
    ],
)
def test_a_wrong_table_is_one_line(write, tmp_path, text, part):
    path = write({"table": "cases.csv"})
    (tmp_path / "cases.csv").write_text(text)
    message = refused(path)
    assert part in message
    assert str(tmp_path / "cases.csv") in message or "rename" in message


def test_a_missing_table_is_one_line(write):
    assert "cases.csv: no such file" in refused(write({"table": "cases.csv"}))


def test_the_table_of_the_paper_has_no_other_columns():
    with open(ROOT / "datasets/paper.csv", newline="") as file:
        assert next(csv.reader(file)) == ["case", "image", "masks", "patient", "subset"]


PAGE = (ROOT / "docs/datasets.md").read_text()


def test_the_page_describes_every_key():
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == KEYS.keys()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_of_the_page_are_valid(tmp_path, text):
    keys = yaml.safe_load(text)
    root = tmp_path / keys.get("root", ".")
    structures = [""]
    if "objects" in keys:
        structures = re.findall(r"\w+", str(list(keys["objects"].values())))
    for pattern in (keys["images"], *(keys["masks"].replace("{object}", s) for s in structures)):
        path = root / pattern.replace("{case}", "a").replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "dataset.yml").write_text(text)
    assert list(found(tmp_path / "dataset.yml")) == ["a"]


def test_the_first_example_is_the_shipped_file():
    first = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert first == yaml.safe_load((ROOT / "datasets/zenodo_3757476.yml").read_text())
