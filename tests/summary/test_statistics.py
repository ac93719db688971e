import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_lungs.summary import statistics
from sam_lungs.summary.paired import rank_biserial
from sam_lungs.summary.statistics import (
    bootstrap_interval,
    estimate,
    interval_name,
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


def test_means_equal_hand_computed_values():
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
    # Cases 0.9, 0.6, 0.8.
    assert every["case_avg"] == pytest.approx(2.3 / 3)


def test_the_interval_of_the_mean_over_cases_is_that_of_the_bootstrap():
    scans = {f"p{case}__1": value for case, value in enumerate(SPREAD)} | {"p0__2": 0.5}
    row = estimate(volumes(**scans)).query("subset == 'all' and metric == 'dice'").iloc[0]
    of_cases = np.array([(SPREAD[0] + 0.5) / 2, *SPREAD[1:]])
    of_cases = of_cases[np.argsort([f"p{case}" for case in range(18)])]
    assert row["case_avg"] == pytest.approx(of_cases.mean())
    assert (row["case_low"], row["case_high"]) == bootstrap_interval(np.mean, of_cases)


@pytest.mark.parametrize("cases", [5, 6])
def test_fewer_than_six_cases_have_means_but_no_interval(cases):
    # The number of volumes does not count.
    scans = {f"p{case}__{scan}": 0.9 + case / 100 for case in range(cases) for scan in (1, 2)}
    row = estimate(volumes(**scans)).query("subset == 'all' and metric == 'dice'").iloc[0]
    assert row["cases"] == cases
    means = row[["case_avg", "volume_avg"]].tolist()
    assert means == pytest.approx([0.9 + (cases - 1) / 200] * 2)
    ends = row[["case_low", "case_high", "volume_low", "volume_high"]]
    assert ends.notna().all() == (cases == 6)
    assert ends.isna().all() == (cases == 5)


def test_no_interval_of_a_score_leaves_the_range_of_its_cases():
    row = estimate(volumes(**{f"p{case}": value for case, value in enumerate(ALMOST_PERFECT)}))
    assert row["case_high"].max() <= 1
    assert row["volume_high"].max() <= 1


ALMOST_PERFECT = [1.0, 1.0, 1.0, 1.0, 1.0, 0.4]


def test_intervals_are_named_by_the_number_of_cases():
    assert interval_name(5) == "no interval, fewer than 6 patients"
    assert interval_name(6) == interval_name(49) == "95%, approximate"
    assert interval_name(50) == "95%"


def test_metrics_of_volumes_and_interactions():
    table = FOUR.assign(
        dice_3d=[0.9, 0.4, 0.6, np.nan], hd95_3d_mm=np.nan, interactions=[10, 20, 40, np.nan]
    )
    cases = summarize_cases(table).set_index("case")
    assert list(cases) == ["jaccard_avg", "dice_avg", "dice_3d", "interactions", "volumes"]
    assert cases["dice_3d"].tolist()[:2] == pytest.approx([0.9, 0.5])
    assert cases["interactions"].tolist() == pytest.approx([10, 30, np.nan], nan_ok=True)

    rows = estimate(table).query("subset == 'all'").set_index("metric")
    assert rows.index.tolist() == ["jaccard", "dice", "dice_3d"]
    row = rows.loc["dice_3d"]
    assert row[["cases", "volumes"]].tolist() == [2, 3]
    assert row[["volume_avg", "case_avg"]].tolist() == pytest.approx([1.9 / 3, 0.7])
    assert row[["slices", "slice_avg"]].isna().all()
    # The volumes of this row; the fourth, whose number is not known, is among those of dice.
    assert row["interactions"] == pytest.approx(70 / 3)
    assert np.isnan(rows.loc["dice", "interactions"])
    assert rows["slices"].tolist()[:2] == [100, 100]


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
    # Two equal halves: the interval over 10 is wider by the square root of 2.
    drawn = of_patient[np.random.default_rng(statistics.SEED).integers(10, size=(10_000, 10))]
    low, high = np.quantile(drawn.mean(axis=1) + 0.0005, [0.025, 0.975])
    assert known[["volume_low", "volume_high"]].tolist() == pytest.approx([low, high])
    ratio = (known["volume_high"] - known["volume_low"]) / (
        unknown["volume_high"] - unknown["volume_low"]
    )
    assert ratio == pytest.approx(np.sqrt(2), abs=0.05)
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


def test_the_bootstrap_draws_cases_with_all_their_volumes(monkeypatch):
    monkeypatch.setattr(statistics, "FEWEST_CASES", 2)
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


@settings(max_examples=30)
@given(
    cases=st.one_of(st.integers(6, 60), st.integers(1000, 2500)),
    block=st.integers(1, 100_000),
    resamples=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_the_bootstrap_in_blocks_is_that_of_all_draws_at_once(cases, block, resamples, seed):
    values = np.random.default_rng(seed).normal(size=cases)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "BLOCK", block)
        patch.setattr(statistics, "RESAMPLES", resamples)
        blocks = list(statistics.draw_cases(cases))
        intervals = [bootstrap_interval(each, values) for each in (np.mean, rank_biserial)]
    assert all(drawn.size <= max(block, cases) for drawn in blocks)
    drawn = np.random.default_rng(statistics.SEED).integers(cases, size=(resamples, cases))
    np.testing.assert_array_equal(np.concatenate(blocks), drawn)
    for statistic, interval in zip((np.mean, rank_biserial), intervals, strict=True):
        of_all = statistic(values[drawn], axis=1)
        assert interval == tuple(np.quantile(of_all, [(1 - 0.95) / 2, (1 + 0.95) / 2]))


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
    np.testing.assert_allclose(table["case_low"], [0.884, 0.927], atol=0.001)
    np.testing.assert_allclose(table["case_high"], [0.921, 0.954], atol=0.001)
