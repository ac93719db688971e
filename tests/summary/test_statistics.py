import math

import numpy as np
import pandas as pd
import pytest

from sam_lungs.summary import statistics
from sam_lungs.summary.statistics import (
    bootstrap_interval,
    estimate,
    summarize_cases,
)


def volumes(**dice: float) -> pd.DataFrame:
    """Volumes with 10, 20, 30 ... slices with lung; Jaccard is half of Dice.

    The parts of a name before `__` are the patient, and before `_` the subset.
    """
    return pd.DataFrame(
        {
            "image": list(dice),
            "patient": [name.partition("__")[0] for name in dice],
            "subset": [name.partition("_")[0] for name in dice],
            "jaccard_slices": 10 * np.arange(1, len(dice) + 1),
            "dice_slices": 10 * np.arange(1, len(dice) + 1),
            "jaccard_avg": np.array(list(dice.values())) / 2,
            "dice_avg": list(dice.values()),
        }
    )


FOUR = volumes(
    coronacases_001=0.9, radiopaedia_10__1_1=0.5, radiopaedia_10__1_2=0.7, radiopaedia_4__1_1=0.8
)


def test_two_scans_of_a_patient_are_one_case():
    table = summarize_cases(FOUR)
    assert table["case"].tolist() == ["coronacases_001", "radiopaedia_10", "radiopaedia_4"]
    assert table["volumes"].tolist() == [1, 2, 1]
    assert table["dice_avg"].tolist() == pytest.approx([0.9, 0.6, 0.8])


def test_means_and_t_interval_equal_hand_computed_values():
    table = estimate(FOUR).set_index(["subset", "metric"])
    assert table.index.get_level_values("subset").unique().tolist() == [
        "all",
        "coronacases",
        "radiopaedia",
    ]
    every = table.loc[("all", "dice")]
    assert every[["cases", "volumes", "slices"]].tolist() == [3, 4, 100]
    assert every["slice_avg"] == pytest.approx((0.9 * 10 + 0.5 * 20 + 0.7 * 30 + 0.8 * 40) / 100)
    assert every["volume_avg"] == pytest.approx(0.725)
    # Cases 0.9, 0.6, 0.8: mean 0.7667, deviation 0.1528; t is 4.3027 with 2 degrees of freedom.
    assert every["case_avg"] == pytest.approx(2.3 / 3)
    reach = 4.302652729 * 0.152752523 / math.sqrt(3)
    assert every["case_low"] == pytest.approx(2.3 / 3 - reach)
    assert every["case_high"] == pytest.approx(2.3 / 3 + reach)
    half = table.loc[("all", "jaccard")]
    assert half["volume_low"] == pytest.approx(every["volume_low"] / 2)


def test_ten_patients_with_two_scans_each_have_the_interval_of_ten():
    random = np.random.default_rng(0)
    of_patient = random.normal(0.9, 0.05, 10)
    twice = volumes(
        **{f"p{p}__{scan}": of_patient[p] + scan / 1000 for p in range(10) for scan in (0, 1)}
    )
    known = estimate(twice).query("subset == 'all' and metric == 'dice'").iloc[0]
    unknown = estimate(twice.assign(patient=None)).query("subset == 'all'").iloc[-1]
    assert known[["cases", "volumes"]].tolist() == [10, 20]
    assert unknown[["cases", "volumes"]].tolist() == [20, 20]
    # Two equal halves: the interval over 10 is wider by the square root of 2, and by t.
    drawn = of_patient[np.random.default_rng(statistics.SEED).integers(10, size=(10_000, 10))]
    low, high = np.quantile(drawn.mean(axis=1) + 0.0005, [0.025, 0.975])
    assert known[["volume_low", "volume_high"]].tolist() == pytest.approx([low, high])
    ratio = (known["volume_high"] - known["volume_low"]) / (
        unknown["volume_high"] - unknown["volume_low"]
    )
    assert ratio == pytest.approx(math.sqrt(2), abs=0.05)
    assert summarize_cases(twice)["volumes"].tolist() == [2] * 10


def test_volumes_without_a_patient_or_subset():
    table = FOUR.assign(patient=["p", "p", None, None], subset=["old", None, None, None])
    assert summarize_cases(table)["case"].tolist() == [
        "p",
        "radiopaedia_10__1_2",
        "radiopaedia_4__1_1",
    ]
    of_subset = estimate(table).query("metric == 'dice'").set_index("subset")
    assert of_subset["volumes"].to_dict() == {"all": 4, "old": 1}
    nothing_known = estimate(FOUR.assign(patient=None, subset=None))
    assert nothing_known["subset"].tolist() == ["all", "all"]
    assert nothing_known["cases"].tolist() == [4, 4]


def test_the_bootstrap_draws_cases_with_all_their_volumes():
    # Draws of two cases have three means: each case alone, and both, where two scans count twice.
    two = volumes(radiopaedia_10__1_1=0.2, radiopaedia_10__1_2=0.4, coronacases_001=0.9)
    row = estimate(two).query("subset == 'all' and metric == 'dice'").iloc[0]
    assert row["volume_low"] == pytest.approx(0.3)
    assert row["volume_high"] == pytest.approx(0.9)
    assert row["volume_avg"] == pytest.approx(0.5)


def test_estimates_are_repeatable_and_depend_little_on_the_seed(monkeypatch):
    first = estimate(FOUR)
    pd.testing.assert_frame_equal(first, estimate(FOUR))
    many = volumes(**{f"coronacases_{case:03d}": value for case, value in enumerate(SPREAD)})
    low = estimate(many)["volume_low"]
    monkeypatch.setattr(statistics, "SEED", 1)
    assert not low.equals(estimate(many)["volume_low"])
    np.testing.assert_allclose(low, estimate(many)["volume_low"], atol=0.003)


SPREAD = np.random.default_rng(0).normal(0.9, 0.05, 18)


def test_the_bootstrap_interval_is_the_same_with_every_version_of_scipy():
    drawn = np.random.default_rng(0).integers(len(SPREAD), size=(10_000, len(SPREAD)))
    means = SPREAD[drawn].mean(axis=1)
    assert bootstrap_interval(np.mean, SPREAD) == tuple(np.quantile(means, [0.025, 0.975]))


def test_one_case_has_means_but_no_interval():
    table = estimate(volumes(coronacases_001=0.9))
    assert table["subset"].tolist() == ["all", "all"]
    assert table["volume_avg"].tolist() == pytest.approx([0.45, 0.9])
    assert table.filter(regex="low|high").isna().all(axis=None)


def test_estimates_of_the_published_volumes(real_data):
    published = pd.read_csv(real_data / "published" / "per_volume.csv")
    slices = published["lung_slices"]
    table = (
        estimate(
            published.assign(
                jaccard_slices=slices,
                dice_slices=slices,
                patient=published["image"].str.extract(r"(radiopaedia_\d+)_.*", expand=False),
                subset=None,
            )
        )
        .query("subset == 'all'")
        .set_index("metric")
    )
    assert table["cases"].tolist() == [18, 18]
    assert table["volumes"].tolist() == [20, 20]
    assert table["slices"].tolist() == [2973, 2973]
    # The paper reports the means over slices.
    np.testing.assert_allclose(table["slice_avg"], [0.9145, 0.9495], atol=1e-4)
    assert table["volume_avg"].round(3).tolist() == [0.899, 0.937]
    np.testing.assert_allclose(table["volume_low"], [0.880, 0.922], atol=0.001)
    np.testing.assert_allclose(table["volume_high"], [0.919, 0.953], atol=0.001)
