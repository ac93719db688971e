from pathlib import Path

import pytest

from sam_lungs.data.volume import volume_name
from sam_lungs.utils.errors import InputError


def test_a_volume_is_named_as_its_file_without_the_suffix_of_its_format():
    for name in ("a.b.npy", "a.b.npz", "a.b.nii", "a.b.nii.gz"):
        assert volume_name(Path("folder") / name) == "a.b"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nii", ".nii.gz", ""])
@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_cannot_be_a_results_folder_is_refused(name, suffix):
    with pytest.raises(InputError, match="rename it"):
        volume_name(Path("/folder") / f"{name}{suffix}" if suffix else Path(name))
