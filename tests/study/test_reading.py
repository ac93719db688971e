"""Cases with the window of a model's authors."""

from pathlib import Path

import pytest
from conftest import chest, save_nifti

from sam_lungs.data.case import read_case
from sam_lungs.data.windowing import LUNG_WINDOW, Window
from sam_lungs.study.options import Options
from sam_lungs.study.reading import read_case_for


def options(image: Path, masks: Path, preprocessing: str) -> Options:
    return Options([image], [masks], model="medsam", preprocessing=preprocessing)


@pytest.mark.parametrize(("lung_hu", "is_outside"), [(-905, False), (-915, True)])
def test_the_native_window_replaces_that_for_lungs(tmp_path, lung_hu, is_outside):
    image, masks = chest()
    image[masks > 0] = lung_hu
    paths = [
        save_nifti(tmp_path / f"{name}_a.nii.gz", array)
        for name, array in (("image", image), ("masks", masks))
    ]
    common, native = (options(*paths, each) for each in ("common", "native"))
    (files,) = native.case_files
    assert read_case_for(files, common).window == read_case(files).window == LUNG_WINDOW
    case = read_case_for(files, native)
    assert case.window == Window(-160, 1500)
    assert case.faults == []
    message = (
        f"{paths[0]}: 100% of the voxels under the masks lie outside the window of the model's"
        " authors -910..590, which makes them black or white"
    )
    assert (message in case.warnings) == is_outside
