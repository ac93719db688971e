import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from results_folders import write_report, write_volume

from sam_lungs.data.montgomery import CASES
from sam_lungs.study.results import SliceResult
from sam_lungs.summary.published_xrays import compare_with_published_xrays

MEANS = {"jaccard": 0.8745, "dice": 0.9319}


@pytest.fixture
def xrays() -> pd.DataFrame:
    """138 X-rays with the published means and quartiles."""
    published = pd.read_csv(ROOT / "sam_lungs/summary/published_xrays.csv")
    columns = {}
    for metric, figures in published.groupby("metric"):
        mean, *quartiles = figures["published"]
        # The quartiles are between the values 34 and 35, 68 and 69, 102 and 103.
        values = np.repeat(quartiles, [36, 66, 36])
        values[:34] -= values.mean() * 138 / 34 - mean * 138 / 34
        columns[metric] = values
    return pd.DataFrame({"image": CASES, "slice": 0, **columns})


def test_the_published_figures_are_those_of_the_authors(real_data):
    quartiles = pd.read_csv(real_data / "montgomery/boxplot_montgomery.csv").set_index("metric")
    published = pd.read_csv(ROOT / "sam_lungs/summary/published_xrays.csv")
    for row in published.itertuples():
        name = {"25%": "q1", "50%": "median", "75%": "q3"}.get(row.figure)
        expected = quartiles.loc[row.metric, name] if name else MEANS[row.metric]
        assert row.published == expected
    assert len(published) == 8


@pytest.mark.parametrize("prefix", ["", "image_"])
def test_the_published_values_are_reproduced(xrays, prefix):
    beside = pd.DataFrame({"image": ["coronacases_001"], "slice": 9, "jaccard": 0, "dice": 0})
    xrays = pd.concat([xrays.assign(image=prefix + xrays["image"]), beside])
    verdict, table = compare_with_published_xrays(xrays)
    assert verdict.startswith("Reproduced: the means and quartiles of 138 of 138 published X-rays")
    np.testing.assert_allclose(table["reproduced"], table["published"], atol=1e-12)


@pytest.mark.parametrize(("shift", "word"), [(0.0009, "Reproduced"), (0.0011, "Not reproduced")])
@pytest.mark.parametrize("metric", MEANS)
def test_a_shift_is_judged_by_its_size(xrays, shift, word, metric):
    verdict, table = compare_with_published_xrays(xrays.assign(**{metric: xrays[metric] - shift}))
    assert verdict.startswith(f"{word}: the means")
    assert f"{metric} " in verdict
    assert verdict.endswith(f"differs most, by {shift:.6f}")
    differences = table.groupby("metric")["difference"]
    np.testing.assert_allclose(differences.get_group(metric), -shift, atol=1e-12)


def test_the_mean_alone_is_no_reproduction(xrays):
    """All X-rays at the mean."""
    verdict, _ = compare_with_published_xrays(xrays.assign(**MEANS))
    assert verdict.startswith("Not reproduced: ")
    assert "jaccard 75% differs most, by 0.048520" in verdict


def test_a_part_of_the_x_rays_is_not_compared(xrays):
    verdict, table = compare_with_published_xrays(xrays.head(137))
    assert verdict.startswith("Nothing to compare: 137 of 138 published X-rays are here")
    assert table.empty


def test_other_studies_are_not_compared(xrays):
    assert compare_with_published_xrays(xrays.assign(image="MCUCXR_0007_0")) is None


def test_the_report_of_the_x_rays(xrays, tmp_path):
    for image, _, jaccard, dice in xrays.head(2).itertuples(index=False):
        write_volume(tmp_path / image, [SliceResult(0, jaccard, dice, dice, 10, 10)])
    page = write_report(tmp_path).read_text("utf-8")
    assert "Nothing to compare: 2 of 138 published X-rays are here" in page
    assert "published volumes" not in page
