import numpy as np
import pytest

from sam_lungs.summary.compare import published_volumes
from sam_lungs.summary.join import join_results
from sam_lungs.summary.published import published_slices

METRICS = ["jaccard", "dice"]


def test_the_slices_have_the_published_means():
    slices = published_slices()
    assert len(slices) == 3520
    assert slices["dice"].count() == slices["jaccard"].count() == 2973
    assert slices["jaccard"].mean() == pytest.approx(0.9144929220989173, abs=1e-15)
    assert slices["dice"].mean() == pytest.approx(0.9494478206915193, abs=1e-15)


def test_the_slices_have_the_means_of_the_volumes():
    volumes = published_volumes().set_index("image")
    by_image = published_slices().groupby("image", sort=False)
    assert by_image.size().to_dict() == volumes["slices"].to_dict()
    assert by_image["dice"].count().to_dict() == volumes["lung_slices"].to_dict()
    for metric in METRICS:
        assert by_image[metric].mean().round(6).to_dict() == volumes[f"{metric}_avg"].to_dict()


@pytest.mark.parametrize("folder", ["published", "published_coronacases"])
def test_the_slices_are_the_authors_to_the_last_bit(real_data, folder):
    theirs = join_results(real_data / folder).slices
    theirs["image"] = theirs["image"].str.removeprefix("image_")
    pairs = published_slices().merge(theirs, on=["image", "slice"], suffixes=("", "_theirs"))
    assert len(pairs) == len(theirs) > 900
    for metric in METRICS:
        np.testing.assert_array_equal(pairs[metric], pairs[f"{metric}_theirs"])
