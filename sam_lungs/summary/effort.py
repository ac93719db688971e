"""What runs reach for how many interactions, and whether a baseline reaches as much as a model."""

import pandas as pd

from sam_lungs.summary.join import JoinedResults

# A baseline whose mean Dice score is at most this much lower than a model's rivals it.
RIVAL_MARGIN = 0.01


def effort_of(runs: dict[str, JoinedResults]) -> pd.DataFrame:
    """Return a row per run whose interactions are known.

    Columns: `run`; `model`, the run's name where no model is recorded; `interactions`, mean per
    volume; `dice`, mean over patients, with its interval `low`, `high`.
    """
    rows = []
    for name, run in runs.items():
        (row,) = run.intervals.query("subset == 'all' and metric == 'dice'").to_dict("records")
        models = {str(each.segmenter.get("model")) for each in run.records.values()}
        rows.append(
            {
                "run": name,
                "model": ", ".join(sorted(models)) or name,
                "interactions": row["interactions"],
                "dice": row["case_avg"],
                "low": row["case_low"],
                "high": row["case_high"],
            }
        )
    return pd.DataFrame(rows).dropna(subset=["interactions"])


def rivals(runs: dict[str, JoinedResults], comparison: pd.DataFrame) -> list[str]:
    """Return a line for each model that a baseline rivals or beats.

    comparison: of the runs, see `compare.compare_runs`.
    """
    baselines = {
        name
        for name, run in runs.items()
        if run.records
        and all(each.segmenter.get("family") == "baseline" for each in run.records.values())
    }
    lines = []
    for row in comparison[comparison["metric"] == "dice"].to_dict("records"):
        sides = ["first", "second"] if row["first"] in baselines else ["second", "first"]
        baseline, model = (row[side] for side in sides)
        reached, wanted = (row[f"{side}_avg"] for side in sides)
        if baseline in baselines and model not in baselines and reached >= wanted - RIVAL_MARGIN:
            patients = f"{row['cases']} patient" + ("s" if row["cases"] > 1 else "")
            verb = "beats" if reached > wanted else "rivals"
            lines.append(
                f"{baseline}, a baseline without weights, {verb} {model} here: mean Dice"
                f" {reached:.4f} against {wanted:.4f} over {patients}. On such data"
                " the model adds little or nothing."
            )
    return lines
