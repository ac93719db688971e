import numpy as np
import pandas as pd
import pytest

from sam_lungs.summary.agreement import agreement, slice_means
from sam_lungs.summary.compare import compare_with_published, verdict
from sam_lungs.summary.published import published_slices
from sam_lungs.summary.statistics import bootstrap_interval


def study(shift_of: dict[str, float] | None = None) -> pd.DataFrame:
    """Return the published slices, with Dice changed by a shift in some volumes."""
    slices = published_slices()
    slices["dice"] += slices["image"].map(shift_of or {}).fillna(0)
    return slices


def shifted(shifts: list[float]) -> pd.DataFrame:
    """Return the comparison of a study whose volumes, in order, have these differences of Dice."""
    images = published_slices()["image"].unique()
    of_image = dict(zip(images, shifts, strict=False))
    slices = study(of_image)
    return compare_with_published(slices[slices["image"].isin(of_image)])


def test_the_published_results_agree_with_themselves():
    comparison = compare_with_published(study())
    table = agreement(comparison)
    assert table["metric"].tolist() == ["jaccard", "dice"]
    assert table[["volumes", "patients"]].values.tolist() == [[20, 18]] * 2
    numbers = ["mean_difference", "low", "high", "limit_low", "limit_high"]
    np.testing.assert_allclose(table[numbers], 0, atol=1e-15)
    assert table["equivalent"].tolist() == [True, True]
    assert table["margin"].tolist() == [0.001, 0.001]
    assert verdict(comparison).startswith("Reproduced: 20 of 20")


def test_limits_of_agreement_equal_hand_computed_values():
    # Each of the 20 differences is 0.0001 from the mean.
    comparison = shifted([0.0001, 0.0003] * 10)
    row = agreement(comparison).set_index("metric").loc["dice"]
    deviation = np.sqrt(20 * 0.0001**2 / 19)
    assert row["mean_difference"] == pytest.approx(0.0002)
    assert row["limit_low"] == pytest.approx(0.0002 - 1.96 * deviation)
    assert row["limit_high"] == pytest.approx(0.0002 + 1.96 * deviation)
    assert row["limit_low"] < row["low"] < 0.0002 < row["high"] < row["limit_high"]
    assert row["equivalent"]


def test_the_interval_is_that_of_ninety_percent_over_patients():
    shifts = (np.random.default_rng(0).normal(0, 0.0003, 20)).tolist()
    comparison = shifted(shifts)
    row = agreement(comparison).set_index("metric").loc["dice"]
    by_patient = comparison.groupby("patient")["dice_difference"]
    assert by_patient.size().max() == 2
    low, high = bootstrap_interval(
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        by_patient.sum().to_numpy(),
        by_patient.size().to_numpy(),
        confidence=0.9,
    )
    assert (row["low"], row["high"]) == (low, high)
    assert row["mean_difference"] == pytest.approx(np.mean(shifts))


@pytest.mark.parametrize("sign", [1, -1])
def test_volumes_within_the_margin_may_still_not_be_equivalent(sign):
    # Each volume is within 0.001, their limits of agreement are not.
    comparison = shifted([0.0009 * sign, -0.0009 * sign] * 10)
    table = agreement(comparison).set_index("metric")
    assert table["equivalent"].to_dict() == {"jaccard": True, "dice": False}
    assert table.loc["dice", "limit_high"] > 0.001
    line = verdict(comparison)
    assert line.startswith(
        "Not reproduced: not equivalent, though 20 of 20 published volumes are within 0.001; "
    )
    assert "\n" not in line


def test_a_constant_shift_beyond_the_margin_is_not_equivalent():
    table = agreement(shifted([0.0011] * 20)).set_index("metric")
    assert not table.loc["dice", "equivalent"]
    assert table.loc["dice", ["low", "high"]].tolist() == pytest.approx([0.0011, 0.0011])
    assert agreement(shifted([0.0009] * 20))["equivalent"].all()


def test_too_few_patients_are_neither_equivalent_nor_not():
    comparison = shifted([0.0005] * 5)
    table = agreement(comparison)
    assert table["equivalent"].isna().all()
    assert table[["low", "high"]].isna().all(axis=None)
    assert table["limit_low"].notna().all()
    assert verdict(comparison).startswith("Reproduced as far as compared: 5 of 20")
    assert agreement(shifted([0.0005] * 6))["equivalent"].notna().all()


def test_nothing_compared_is_not_equivalent():
    phantom = study().query("image == 'coronacases_001'").assign(image="phantom")
    table = agreement(compare_with_published(phantom))
    assert table["volumes"].tolist() == [0, 0]
    assert table["equivalent"].isna().all()


def test_the_means_over_slices_are_those_of_the_paper():
    table = slice_means(compare_with_published(study({"coronacases_001": 0.01})))
    assert table["metric"].tolist() == ["jaccard", "dice"]
    np.testing.assert_allclose(table["published"], [0.9145, 0.9495], atol=1e-4)
    # 227 of the 2973 slices with lung are of this volume.
    assert table["difference"].tolist() == pytest.approx([0, 0.01 * 227 / 2973])
