import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_lungs.study.metrics import CLICK_METRICS, METRICS
from sam_lungs.summary import statistics
from sam_lungs.summary.compare import (
    compare_runs,
    compare_with_published,
    pair_slices,
    published_volumes,
    read_runs,
    verdict,
)
from sam_lungs.summary.join import JoinedResults, join_results
from sam_lungs.utils.errors import InputError


def slices(**dice: list[float]) -> pd.DataFrame:
    """Return slices of volumes, numbered from 0; Jaccard is half of Dice."""
    return pd.DataFrame(
        [
            {"image": image, "slice": number, "jaccard": value / 2, "dice": value}
            for image, values in dice.items()
            for number, value in enumerate(values)
        ]
    )


def joined(table: pd.DataFrame, **patients: str) -> JoinedResults:
    """Return joined results with nothing but slices and the patients of volumes."""
    volumes = pd.DataFrame({"image": table["image"].unique()})
    volumes["patient"] = volumes["image"].map(patients).astype(object)
    others = [pd.DataFrame()] * (len(JoinedResults._fields) - 2)
    return JoinedResults(table, volumes, *others)


def as_published(shift: float = 0.0) -> pd.DataFrame:
    """Return slices with the published number and means per volume, and Dice higher by `shift`."""
    volumes = published_volumes()
    table = volumes.loc[volumes.index.repeat(volumes["lung_slices"])]
    return pd.DataFrame(
        {
            "image": "image_" + table["image"],
            "slice": table.groupby("image").cumcount(),
            "jaccard": table["jaccard_avg"],
            "dice": table["dice_avg"] + shift,
        }
    )


def test_all_published_volumes_are_reproduced():
    table = compare_with_published(as_published())
    assert table["image"].tolist() == published_volumes()["image"].tolist()
    assert (table["lung_slices_published"] == table["lung_slices_reproduced"]).all()
    assert table["largest_slice_difference"].notna().all()
    assert verdict(table).startswith("Reproduced: 20 of 20 published volumes within 0.001; ")


def test_some_published_volumes_are_reproduced():
    few = as_published(0.0005).query("image != 'image_coronacases_003'")
    table = compare_with_published(few)
    assert table["dice_difference"].to_numpy() == pytest.approx(0.0005, abs=1e-6)
    assert verdict(table).startswith("Reproduced as far as compared: 19 of 20 published volumes")
    assert "mean Dice differs by 0.000500" in verdict(table)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shift", [0.0011, -0.0011, np.nan])
def test_one_volume_out_of_tolerance_is_not_reproduced(metric, shift):
    table = as_published()
    table.loc[table["image"] == "image_radiopaedia_4_85506_1", metric] += shift
    line = verdict(compare_with_published(table))
    assert line.startswith("Not reproduced: 19 of 20 compared volumes (20 published)")
    assert "radiopaedia_4_85506_1 differs most" in line


def test_a_missing_slice_is_not_reproduced():
    table = as_published().query("image != 'image_coronacases_002' or slice > 0").copy()
    table.loc[table["image"] == "image_coronacases_001", "dice"] += 0.0009
    line = verdict(compare_with_published(table))
    assert line.startswith("Not reproduced: 19 of 20")
    assert "coronacases_002 differs most" in line
    assert "175 slices with lung, 176 in the publication" in line


def test_phantoms_cannot_be_compared_with_published_volumes():
    table = compare_with_published(slices(image_phantom_001=[0.5]))
    assert table.empty
    line = "Nothing to compare: none of the 20 published volumes is here"
    assert verdict(table) == line


def test_published_slices_replace_the_published_means():
    ours = slices(image_coronacases_001=[np.nan, 0.5, 0.9], coronacases_002=[0.8])
    theirs = slices(coronacases_001=[np.nan, 0.6, 0.7], image_thorax=[1.0])
    table = compare_with_published(ours, theirs).set_index("image")
    one, two = table.loc["coronacases_001"], table.loc["coronacases_002"]
    assert one["dice_published"] == pytest.approx(0.65)
    assert one["dice_difference"] == pytest.approx(0.05)
    assert one["jaccard_difference"] == pytest.approx(0.025)
    assert one["largest_slice_difference"] == pytest.approx(0.2)
    assert one["lung_slices_published"] == one["lung_slices_reproduced"] == 2
    assert two["dice_published"] == 0.955147
    assert np.isnan(two["largest_slice_difference"])
    assert two[["lung_slices_published", "lung_slices_reproduced"]].tolist() == [176, 1]


def test_slices_are_matched_by_image_and_number():
    ours = slices(image_a=[np.nan, 0.5, 0.9], image_b=[0.8])
    theirs = slices(a=[0.1, 0.2, 0.3, 0.4], c=[0.7]).sort_values("slice", ascending=False)
    pairs = pair_slices(theirs, ours).sort_values("slice")
    assert pairs["image"].tolist() == ["image_a", "image_a"]
    assert pairs["slice"].tolist() == [1, 2]
    assert pairs["dice_published"].tolist() == [0.2, 0.3]
    assert pairs["dice_reproduced"].tolist() == [0.5, 0.9]
    assert pairs["jaccard_reproduced"].tolist() == [0.25, 0.45]


def test_a_duplicate_slice_is_refused():
    twice = pd.concat([slices(image_a=[0.5, 0.6]), slices(image_a=[0.7])])
    with pytest.raises(InputError, match="a: has slice 0 twice"):
        pair_slices(twice, slices(a=[0.5]))


def test_an_exact_name_is_preferred_to_one_without_image():
    both = slices(image_a=[0.5], a=[0.7])
    for names in (["a"], ["image_a"], ["a", "image_a"], ["image_a", "a"]):
        others = slices(**{name: [0.9] for name in names})
        expected = {"image_a": 0.5, "a": 0.7}
        pairs = pair_slices(both, others).set_index("image")["dice_published"]
        assert pairs.to_dict() == {name: expected[name] for name in names}
        pairs = pair_slices(others, both).set_index("image")["dice_reproduced"]
        assert pairs.to_dict() == {name: expected[name] for name in names}
    table = compare_with_published(slices(image_coronacases_001=[0.5], coronacases_001=[0.7]))
    assert table["dice_reproduced"].tolist() == [0.7]


def test_the_shipped_figures_are_the_published_ones(real_data):
    pd.testing.assert_frame_equal(
        published_volumes().drop(columns="patient"),
        pd.read_csv(real_data / "published" / "per_volume.csv"),
    )
    table = compare_with_published(join_results(real_data / "published").slices)
    assert len(table) == 10
    for metric in METRICS:
        np.testing.assert_allclose(table[f"{metric}_difference"], 0, atol=5e-7)
    assert (table["lung_slices_published"] == table["lung_slices_reproduced"]).all()


def test_published_slices_reproduce_themselves(real_data):
    published = join_results(real_data / "published").slices
    table = compare_with_published(published, published)
    assert len(table) == 10
    assert (table.filter(like="difference") == 0).all(axis=None)
    assert verdict(table).startswith("Reproduced as far as compared: 10 of 20 published volumes")
    assert "mean Dice differs by 0.000000" in verdict(table)


def run_of(values: list[float]) -> JoinedResults:
    """Return a run of cases with one slice each."""
    return joined(slices(**{f"case_{number:03d}": [v] for number, v in enumerate(values)}))


def dice_row(first: JoinedResults, second: JoinedResults) -> pd.Series:
    return compare_runs({"one": first, "other": second}).set_index("metric").loc["dice"]


def test_comparison_of_two_runs_equals_hand_computed_values():
    row = dice_row(run_of([0.5] * 6), run_of([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))
    assert row[["first", "second", "cases", "slices", "slices_left_out"]].tolist() == [
        "one",
        "other",
        6,
        6,
        0,
    ]
    means = row[["first_avg", "second_avg", "difference"]].tolist()
    assert means == pytest.approx([0.5, 0.75, 0.25])
    assert 0.1 < row["low"] < 0.25 < row["high"] < 0.4
    # The five signs that count are equal: 2 of the 2^5 outcomes. Jaccard has the same p, so Holm
    # doubles it.
    assert row["p"] == 0.0625
    assert row["p_holm"] == 0.125
    assert row[["effect", "effect_low", "effect_high", "effect_p"]].tolist() == [1, 1, 1, 0.0625]


def test_p_is_of_the_mean_and_effect_p_of_the_ranks():
    # One large difference decides the mean, four small ones the ranks. In 16 of the 32 ways to
    # flip signs the large one stays negative, and no sum of these is above that seen: p is 1.
    first, second = [0.9, 0.5, 0.5, 0.5, 0.5], [0.1, 0.51, 0.52, 0.53, 0.54]
    row = dice_row(run_of([*first, 0.5]), run_of([*second, 0.5]))
    assert row["difference"] < 0 < row["effect"]
    assert row["p"] == 1
    # Ranks 1 to 4 against 5: 10 to 5. In 10 of the 32 ways the rank sum is at least 10.
    assert row["effect_p"] == 20 / 32


def test_two_scans_of_a_patient_are_one_case(monkeypatch):
    monkeypatch.setattr(statistics, "FEWEST_CASES", 2)
    first = slices(p_1=[0.5], p_2=[0.5, 0.5], a=[0.5, 0.5])
    second = slices(image_p_1=[0.8], p_2=[0.7, 0.5], a=[0.4, 0.4])
    # Either run may know the patients.
    runs = joined(first), joined(second, image_p_1="p", p_2="p")
    pd.testing.assert_series_equal(
        dice_row(*runs), dice_row(joined(first, p_1="p", p_2="p"), joined(second))
    )
    assert dice_row(joined(first), joined(second))["cases"] == 3
    row = dice_row(*runs)
    assert row[["cases", "slices"]].tolist() == [2, 5]
    # The two scans differ by 0.3 and 0.1, so the patient by 0.2; the other patient by -0.1.
    assert row["difference"] == pytest.approx(0.05)
    # Draws of two cases have three means; the outer two are a quarter of the draws each.
    assert row[["low", "high"]].tolist() == pytest.approx([-0.1, 0.2])
    assert row["effect"] == pytest.approx((2 - 1) / 3)
    assert row[["effect_low", "effect_high"]].tolist() == [-1, 1]
    assert row["p"] == 1


def test_slices_of_only_one_run_are_left_out():
    first = joined(slices(a=[np.nan, 0.5, 0.5], b=[0.5, 0.5], c=[0.5]))
    second = joined(slices(a=[0.9, 0.6], b=[0.5, 0.6]))
    row = dice_row(first, second)
    # Both runs have slice 1 of a and both slices of b. Left out: slices 0 and 2 of a, and c.
    assert row[["cases", "slices", "slices_left_out"]].tolist() == [2, 3, 3]
    assert row["difference"] == pytest.approx((0.1 + 0.05) / 2)


def test_all_pairs_of_runs_are_compared_in_order():
    runs = {name: run_of([value, value]) for name, value in (("z", 0.1), ("a", 0.2), ("b", 0.4))}
    table = compare_runs(runs)
    pairs = table[["first", "second"]].apply("".join, axis=1).tolist()
    assert pairs == ["za", "za", "zb", "zb", "ab", "ab"]
    assert table["metric"].tolist() == [*METRICS] * 3
    assert table["difference"].tolist() == pytest.approx([0.05, 0.1, 0.15, 0.3, 0.1, 0.2])


def test_the_masks_of_a_click_are_compared_when_both_runs_have_them():
    plain = slices(a=[0.5], b=[0.5])
    measured = {name: [0.25, 0.75] for name in CLICK_METRICS}
    runs = {
        "plain": joined(plain),
        "one": joined(plain.assign(**measured)),
        "other": joined(plain.assign(**measured | {"dice_oracle": [0.5, 0.75]})),
    }
    table = compare_runs(runs).set_index(["first", "second", "metric"])
    assert table.index.get_level_values("metric").tolist() == [
        *(*METRICS, *METRICS),
        *(*METRICS, *CLICK_METRICS),
    ]
    row = table.loc["one", "other", "dice_oracle"]
    assert row[["first_avg", "second_avg", "difference"]].tolist() == [0.5, 0.625, 0.125]
    assert table.loc[("one", "other", "dice_mask_1"), "difference"] == 0


INTERVALS = ["low", "high", "effect_low", "effect_high"]


def test_one_case_has_no_interval_and_no_p():
    row = dice_row(run_of([0.5]), run_of([0.6]))
    assert row["difference"] == pytest.approx(0.1)
    assert row[["effect", *INTERVALS, "p", "p_holm", "effect_p"]].isna().all()


@pytest.mark.parametrize("cases", [2, 5, 6])
def test_fewer_than_six_cases_have_a_p_but_no_effect_and_no_interval(cases):
    row = dice_row(run_of([0.5] * cases), run_of([0.6] * cases))
    assert row["p"] == row["effect_p"] == 2 / 2**cases
    assert row[INTERVALS].notna().all() == (cases == 6)
    assert row[["effect", *INTERVALS]].isna().all() == (cases < 6)


def test_a_run_does_not_differ_from_itself():
    values = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    row = dice_row(run_of(values), run_of(values))
    columns = ["difference", "low", "high", "effect", "effect_low", "effect_high"]
    assert (row[columns] == 0).all()
    assert row[["p", "p_holm", "effect_p"]].isna().all()


def test_renaming_and_reordering_runs_changes_names_and_signs_only():
    random = np.random.default_rng(0)
    one, two, three = (run_of(random.uniform(0.8, 1, 20).tolist()) for _ in range(3))
    there = compare_runs({"one": one, "two": two, "three": three}).set_index(["first", "second"])
    back = compare_runs({"c": three, "b": two, "a": one}).set_index(["first", "second"])
    for pair, swapped in ((("one", "two"), ("b", "a")), (("one", "three"), ("c", "a"))):
        ours, theirs = there.loc[pair].set_index("metric"), back.loc[swapped].set_index("metric")
        for same in ("p", "p_holm", "effect_p", "cases", "slices", "slices_left_out"):
            pd.testing.assert_series_equal(ours[same], theirs[same])
        for sign in ("difference", "effect"):
            np.testing.assert_allclose(ours[sign], -theirs[sign], rtol=1e-12)
        np.testing.assert_allclose(ours["low"], -theirs["high"], rtol=1e-12)


def test_cases_without_difference_are_left_out_of_p():
    # Three cases differ, all upwards: 2 of the 2^3 outcomes.
    row = dice_row(run_of([0.5] * 5), run_of([0.5, 0.6, 0.7, 0.8, 0.5]))
    assert row["p"] == row["effect_p"] == 0.25
    assert row["cases"] == 5


def test_runs_without_a_slice_in_common_are_refused():
    with pytest.raises(InputError, match="one and other have no slice"):
        dice_row(joined(slices(a=[0.5, np.nan])), joined(slices(a=[np.nan, 0.5], b=[0.5])))


# Coarse, so that there are ties and zeros.
DICE = st.integers(0, 10).map(lambda tenths: tenths / 10)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(DICE, DICE), min_size=1, max_size=10))
def test_swapping_the_runs_changes_signs(pairs):
    first, second = (run_of(list(values)) for values in zip(*pairs, strict=True))
    there, back = dice_row(first, second), dice_row(second, first)
    for one, other in (("low", "high"), ("effect_low", "effect_high")):
        assert there[one] == pytest.approx(-back[other], nan_ok=True)
        assert there[other] == pytest.approx(-back[one], nan_ok=True)
    for same in ("difference", "effect"):
        assert there[same] == pytest.approx(-back[same], nan_ok=True)
    assert there["first_avg"] == back["second_avg"]
    for same in ("p", "p_holm", "effect_p"):
        assert there[same] == pytest.approx(back[same], nan_ok=True)
    assert np.isnan(there["effect"]) or -1 <= there["effect"] <= 1


def hd95_run(hd95_mm: dict[str, list[float]], **patients: str) -> JoinedResults:
    """Return a run with HD95 of slices; NaN where the predicted mask is empty, penalty 100 mm."""
    table = slices(**{image: [0.5] * len(values) for image, values in hd95_mm.items()})
    values = [value for of_image in hd95_mm.values() for value in of_image]
    penalised = pd.Series(values).fillna(100)
    return joined(table.assign(hd95_mm=values, hd95_penalised_mm=penalised), **patients)


def test_hd95_is_compared_over_common_slices_and_with_a_penalty():
    # The first run has no mask in the two slices that are difficult for the second.
    failing = hd95_run({"a": [4, np.nan], "b": [np.nan, 6, 2]})
    complete = hd95_run({"a": [4, 20], "b": [30, 5, 1]})
    table = compare_runs({"failing": failing, "complete": complete}).set_index("metric")
    assert table.index.tolist() == ["jaccard", "dice", "hd95_mm", "hd95_penalised_mm"]
    common, penalised = table.loc["hd95_mm"], table.loc["hd95_penalised_mm"]
    # Common: 4 of a, and 6, 2 against 5, 1 of b.
    assert common[["slices", "slices_left_out"]].tolist() == [3, 2]
    assert common[["first_avg", "second_avg", "difference"]].tolist() == [4, 3.5, -0.5]
    # Over all slices: (4 + 100) / 2 and (100 + 6 + 2) / 3 against 12 and 12: failures count.
    assert penalised[["slices", "slices_left_out"]].tolist() == [5, 0]
    assert penalised[["first_avg", "second_avg", "difference"]].tolist() == [44, 12, -32]


def test_slices_that_only_one_run_has_are_left_out_of_hd95_too():
    first = hd95_run({"a": [1, np.nan, 3], "b": [1]})
    second = hd95_run({"a": [np.nan, np.nan, 4]})
    row = compare_runs({"first": first, "second": second}).set_index("metric").loc["hd95_mm"]
    # Left out: slices 0 and 1 of a, and b.
    assert row[["cases", "slices", "slices_left_out"]].tolist() == [1, 1, 3]


def test_a_metric_without_a_common_slice_has_no_row():
    runs = {"one": hd95_run({"a": [1, np.nan]}), "other": hd95_run({"a": [np.nan, 1]})}
    assert compare_runs(runs)["metric"].tolist() == ["jaccard", "dice", "hd95_penalised_mm"]


def with_volumes(run: JoinedResults, **columns: list) -> JoinedResults:
    return run._replace(volumes=run.volumes.assign(**columns))


def test_metrics_of_volumes_and_interactions_are_compared():
    patients = {"a": "p", "b": "p", "c": "q"}
    table = slices(a=[0.5], b=[0.5], c=[0.5])
    first = with_volumes(
        joined(table, **patients),
        dice_3d=[0.2, 0.4, 0.9],
        hd95_3d_mm=[np.nan, 3, 5],
        nsd_3d_1mm=[0.1, 0.1, 0.1],
        interactions=[10, 20, 60],
    )
    second = with_volumes(
        joined(slices(image_c=[0.5], image_b=[0.5], image_a=[0.5])),
        dice_3d=[0.5, 0.6, 0.6],
        hd95_3d_mm=[4, 3, 1],
    )
    result = compare_runs({"one": first, "other": second}).set_index("metric")
    assert result.index.tolist() == ["jaccard", "dice", "dice_3d", "hd95_3d_mm"]
    row = result.loc["dice_3d"]
    # Patient p has two volumes: 0.3 and 0.6; q: 0.9 and 0.5.
    assert row["cases"] == 2
    averages = row[["first_avg", "second_avg", "difference"]].tolist()
    assert averages == pytest.approx([0.6, 0.55, -0.05])
    assert result["slices"].isna().tolist() == [False, False, True, True]
    assert result["slices_left_out"].isna().tolist() == [False, False, True, True]
    assert result["first_interactions"].tolist() == [30, 30, 30, 40]
    assert result["second_interactions"].isna().all()
    # Volume a has no distance: p is volume b alone.
    row = result.loc["hd95_3d_mm"]
    assert row[["cases", "first_avg", "second_avg"]].tolist() == [2, 4, 3.5]


def test_interactions_that_are_not_known_of_a_volume_are_absent():
    run = joined(slices(a=[0.5], b=[0.5], c=[0.5]))
    known, partly = (with_volumes(run, interactions=count) for count in ([1, 3, 5], [1, np.nan, 3]))
    row = dice_row(known, partly)
    assert row["first_interactions"] == 3
    assert np.isnan(row["second_interactions"])


def write_run(folder, value: float):
    (folder / "image_a").mkdir(parents=True)
    table = f"slice,jaccard,dice\n0,{value},{value}\n"
    (folder / "image_a" / "raw_data_2023-05-27_09-43-55.csv").write_text(table)
    return folder


def test_runs_are_named_by_their_folders_or_paths(tmp_path):
    here = write_run(tmp_path / "a" / "paper", 0.5)
    there = write_run(tmp_path / "b" / "paper", 0.6)
    other = write_run(tmp_path / "no_box", 0.7)
    assert list(read_runs([here, other])) == ["paper", "no_box"]
    assert list(read_runs([here, other, there])) == ["a/paper", "no_box", "b/paper"]


def test_one_run_and_the_same_run_twice_are_refused(tmp_path):
    here = write_run(tmp_path / "paper", 0.5)
    for folders in ([here], [here, here], [here, tmp_path / "missing"]):
        with pytest.raises(InputError):
            compare_runs(read_runs(folders))
