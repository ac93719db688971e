import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.data.names import GENERIC_STEMS, SUFFIXES, case_name
from sam_lungs.utils.errors import InputError


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_is_named_as_its_file_without_the_suffix_of_its_format(suffix):
    assert case_name(Path("folder") / f"a.b{suffix}") == "a.b"
    assert case_name(Path("folder") / f"A.B{suffix.upper()}") == "A.B"


def test_the_names_of_the_paper_are_unchanged():
    for name in ("image_coronacases_001", "mask_radiopaedia_10_85902_1", "coronacases_001"):
        for suffix in (".npy", ".nii.gz"):
            assert case_name(Path(f"{name}{suffix}")) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s0001/ct.nii.gz", "s0001_ct"),
        ("case_00000/imaging.nii.gz", "case_00000_imaging"),
        ("case_00000/Segmentation.NII.GZ", "case_00000_Segmentation"),
        ("s0001/ct/image.nrrd", "s0001_ct_image"),
        ("patient/DICOM", "patient_DICOM"),
        ("patient/DICOM/", "patient_DICOM"),
        ("patient/1.2.840", "1.2.840"),
        ("patient/1.2.840/.", "1.2.840"),
        ("s0001/image_of_ct.npy", "image_of_ct"),
        ("/ct.nii", "ct"),
        ("s0001/../ct.nii", f"{Path.cwd().name}_ct"),
    ],
)
def test_a_name_that_many_files_share_is_preceded_by_its_folder(path, name):
    assert case_name(Path(path)) == name


def test_a_file_in_the_working_folder_is_named_as_from_outside(tmp_path, monkeypatch):
    folder = tmp_path / "s0001"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert case_name(Path("ct.nii.gz")) == case_name(folder / "ct.nii.gz") == "s0001_ct"
    assert case_name(Path(".")) == "s0001"


# Any name of a folder that is not itself generic.
FOLDERS = st.text(st.characters(categories=("L", "N"), codec="utf-8"), min_size=1).filter(
    lambda name: name.lower() not in GENERIC_STEMS
)


@given(st.lists(FOLDERS, min_size=2, unique=True), st.sampled_from(sorted(GENERIC_STEMS)))
def test_files_of_the_same_name_in_different_folders_have_different_names(folders, stem):
    paths = [Path("/data", folder, f"{stem}.nii.gz") for folder in folders]
    names = [case_name(path) for path in paths]
    assert len(set(names)) == len(paths)
    # Whatever else is named.
    assert names[::-1] == [case_name(path) for path in reversed(paths)]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nii", ".NII.GZ", ""])
@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a\nb", os.fsdecode(b"a\xff")])
def test_a_name_that_cannot_be_a_results_folder_is_refused(name, suffix):
    if not suffix and name in ("", ".", ".."):
        name = "/"
    with pytest.raises(InputError, match="rename it"):
        case_name(Path("/folder") / f"{name}{suffix}")


def test_a_folder_whose_name_is_not_utf_8_cannot_give_a_name():
    folder = Path("/", os.fsdecode(b"a\xff"))
    assert case_name(folder / "scan_1.npy") == "scan_1"
    with pytest.raises(InputError, match="rename it"):
        case_name(folder / "ct.npy")
