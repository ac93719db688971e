import numpy as np
import pandas as pd
import pytest

from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.ranking import rank_runs
from sam_lungs.summary.statistics import draw_cases
from sam_lungs.utils.errors import InputError

DRAWS = ["first", "rank_low", "rank_high", "leader_not_best"]


def run_of(values: dict[str, list[float]], **patients: str) -> JoinedResults:
    """Return a run with the Dice scores of the slices of volumes."""
    rows = [
        {"image": image, "slice": number, "jaccard": value, "dice": value}
        for image, of_image in values.items()
        for number, value in enumerate(of_image)
    ]
    volumes = pd.DataFrame({"image": list(values)})
    volumes["patient"] = volumes["image"].map(patients).astype(object)
    return JoinedResults(pd.DataFrame(rows), volumes, *[pd.DataFrame()] * 7)


def run_of_cases(values: np.ndarray) -> JoinedResults:
    return run_of({f"case_{number:03d}": [value] for number, value in enumerate(values)})


def test_a_clear_winner_leads_in_every_draw():
    values = np.linspace(0.5, 0.8, 10)
    runs = {name: run_of_cases(values + gain) for name, gain in (("a", 0), ("b", 0.1), ("c", -0.1))}
    table = rank_runs(runs).set_index("run")
    assert table.index.tolist() == ["b", "a", "c"]
    assert table["case_avg"].tolist() == pytest.approx([0.75, 0.65, 0.55])
    assert table["rank"].tolist() == table["rank_low"].tolist() == [1, 2, 3]
    assert table["rank_high"].tolist() == [1, 2, 3]
    assert table["first"].tolist() == [1, 0, 0]
    assert table["leader_not_best"].tolist() == pytest.approx([0, np.nan, np.nan], nan_ok=True)
    assert (table[["cases", "slices"]] == 10).all(axis=None)


def test_equal_runs_share_a_rank_and_the_first_place():
    values = np.linspace(0.5, 0.8, 10)
    # In another order of the slices, so that the sums differ by rounding errors.
    one = run_of({f"c{case}": [0.1, 0.2, 0.3, value] for case, value in enumerate(values)})
    other = one._replace(slices=one.slices.iloc[::-1])
    worse = run_of({f"c{case}": [0, 0, 0, value] for case, value in enumerate(values)})
    table = rank_runs({"worse": worse, "one": one, "other": other}).set_index("run")
    assert table["rank"].to_dict() == {"one": 1, "other": 1, "worse": 3}
    assert table["first"].tolist() == [1, 1, 0]
    assert table["leader_not_best"].tolist()[:2] == [0, 0]


def test_shares_and_intervals_are_those_of_the_draws():
    random = np.random.default_rng(1)
    values = {name: random.normal(0.9, 0.05, 12) for name in "abcd"}
    table = rank_runs({name: run_of_cases(each) for name, each in values.items()})
    (drawn,) = draw_cases(12)
    means = np.array([values[name][drawn].mean(axis=1) for name in table["run"]])
    # Ranks, counted: one more than the number of better runs.
    ranks = 1 + (means[:, None] < means[None]).sum(axis=1)
    assert table["first"].tolist() == pytest.approx((ranks == 1).mean(axis=1).tolist())
    assert table["first"].sum() == pytest.approx(1)
    ordered = np.sort(ranks, axis=1)
    # The smallest rank that at least 2.5 % and 97.5 % of the draws do not exceed.
    assert table["rank_low"].tolist() == ordered[:, 249].tolist()
    assert table["rank_high"].tolist() == ordered[:, 9749].tolist()
    assert table["rank"].tolist() == [1, 2, 3, 4]
    better = (means[1:] > means[0]).any(axis=0).mean()
    assert 0 < better < 1
    assert table["leader_not_best"].iloc[0] == pytest.approx(better)
    assert table["leader_not_best"].iloc[1:].isna().all()


def test_only_slices_and_patients_of_all_runs_count():
    # All runs have slice 0 of a, slices 0 and 1 of b, and slice 0 of c; a and b are of one patient.
    one = run_of({"a": [0.2, 0.9], "b": [0.4, 0.6], "c": [0.9]}, a="p", b="p")
    two = run_of({"image_a": [0.3, np.nan], "b": [0.5, 0.5], "c": [0.8], "d": [1.0]})
    three = run_of({"c": [0.7], "b": [0.5, 0.7, 0.9], "a": [0.4, 0.1]})
    table = rank_runs({"one": one, "two": two, "three": three}).set_index("run")
    assert table[["cases", "slices"]].drop_duplicates().values.tolist() == [[2, 4]]
    means = {"one": (0.35 + 0.9) / 2, "two": (0.4 + 0.8) / 2, "three": (0.5 + 0.7) / 2}
    assert table["case_avg"].to_dict() == pytest.approx(means)
    # 0.6 and 0.6 are equal.
    assert table["rank"].to_dict() == {"one": 1, "two": 2, "three": 2}
    assert table[DRAWS].isna().all(axis=None)  # two patients


def test_renaming_and_reordering_runs_changes_names_only():
    random = np.random.default_rng(2)
    runs = {name: run_of_cases(random.normal(0.9, 0.05, 8)) for name in ("x", "y", "z")}
    reordered = {name.upper(): runs[name] for name in ("z", "x", "y")}
    table = rank_runs(reordered)
    table["run"] = table["run"].str.lower()
    pd.testing.assert_frame_equal(table, rank_runs(runs))


def test_the_smallest_distance_is_the_best():
    runs = {}
    for name, hd95_mm in (("far", 9.0), ("near", 2.0), ("failing", 1.0)):
        run = run_of_cases(np.full(6, 0.5))
        slices = run.slices.assign(hd95_mm=hd95_mm, hd95_penalised_mm=hd95_mm)
        if name == "failing":
            slices.loc[0, ["hd95_mm", "hd95_penalised_mm"]] = np.nan, 100
        runs[name] = run._replace(slices=slices)
    common = rank_runs(runs, "hd95_mm")
    assert common["run"].tolist() == ["failing", "near", "far"]
    assert (common["slices"] == 5).all()
    assert rank_runs(runs, "hd95_penalised_mm")["run"].tolist() == ["near", "far", "failing"]


def test_runs_without_a_common_slice_are_refused():
    runs = {"one": {"a": [1], "b": [1]}, "two": {"b": [1], "c": [1]}, "three": {"a": [1], "c": [1]}}
    with pytest.raises(InputError, match="one, two, three: no slice with lung is in all of them"):
        rank_runs({name: run_of(values) for name, values in runs.items()})
