"""The CLAIM checklist, as far as a run can answer it.

Mongan et al. 2020, doi 10.1148/ryai.2020200029 (42 items), and its update, Tejani et al. 2024, doi
10.1148/ryai.240300 (44 items). `claim.csv` has the items of both in our own words.
"""

import csv
from pathlib import Path

import numpy as np

from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.methods_facts import is_elsewhere
from sam_lungs.summary.methods_wording import code, count, listed, table

ITEMS = Path(__file__).with_name("claim.csv")
INTRODUCTION = """# CLAIM checklist

Items of the Checklist for Artificial Intelligence in Medical Imaging, in our own words: numbers of
its 2024 update (Tejani et al., doi 10.1148/ryai.240300) and of the version of 2020 (Mongan et al.,
doi 10.1148/ryai.2020200029). Numbers in brackets are references of methods.md. Answers come from
the run records and tables. "In part" means that the rest is for the authors.

"""
ANSWERED, IN_PART, FOR_AUTHORS = "answered", "in part", "for the authors"
NOTHING_TRAINED = "No model was trained in this study's runs"
LOW_DICE = 0.5
WORST_VOLUMES = 3


def fill(sections: dict[str, str], runs: dict[str, JoinedResults]) -> str:
    """Return the checklist as Markdown: a row per item, with its answer if there is one.

    sections: from `methods_sections.describe`.
    """
    answers = _answers(sections, runs)
    with open(ITEMS, encoding="utf-8", newline="") as file:
        items = list(csv.DictReader(file))
    rows = []
    for item in items:
        status, answer = answers.get(item["claim_2024"], (FOR_AUTHORS, ""))
        numbers = [item[key] or "-" for key in ("claim_2024", "claim_2020")]
        rows.append((*numbers, item["section"], item["item"], status, answer))
    header = ("2024", "2020", "section", "item", "status", "answer")
    return INTRODUCTION + table(header, rows)


def _answers(
    sections: dict[str, str], runs: dict[str, JoinedResults]
) -> dict[str, tuple[str, str]]:
    """Return the status and the answer of items, by their numbers of 2024."""
    records = [record for run in runs.values() for record in run.records.values()]
    answers = {
        "12": (IN_PART, _missing(runs)),
        "28": (ANSWERED, sections["Metrics"]),
        "29": (ANSWERED, sections["Statistics"]),
        "35": (IN_PART, sections["Data"]),
        "37": (IN_PART, _performance(runs)),
        "39": (IN_PART, _failures(runs)),
        "42": (IN_PART, "methods.md has the technical details that are recorded."),
        "43": (IN_PART, "The tables in tables/ are ready for deposit."),
    }
    if len(runs) > 1:
        answers["30"] = IN_PART, f"These runs were compared: {listed(map(code, runs))}."
    if not records:
        return answers
    is_complete = len(records) == sum(len(run.volumes) for run in runs.values())
    answered = ANSWERED if is_complete else IN_PART
    answers |= {
        "7": (IN_PART, "tables/runs.csv has the SHA-256 of the images and masks, where recorded."),
        "14": (IN_PART, "Reference masks were read from files; see item 7 for their SHA-256."),
        "23": (answered, f"{sections['Software']} {sections['Hardware']}"),
    }
    if "Images" in sections:
        answers["9"] = answered, sections["Images"]
    if any(record.segmenter.get("weights") for record in records):
        answers["24"] = IN_PART, "Weights were not changed; tables/runs.csv has their SHA-256."
    if is_complete and not any(map(is_elsewhere, records)):
        answers |= {
            "19": (
                IN_PART,
                f"{NOTHING_TRAINED}, so all volumes are test data; whether the weights were"
                " trained on some of them is for the authors.",
            ),
            "22": (IN_PART, f"{sections['Model']} {sections['Prompts']}"),
            "25": (IN_PART, f"{NOTHING_TRAINED}."),
            "26": (IN_PART, f"{NOTHING_TRAINED}, so no final model was selected."),
            "27": (ANSWERED, "No ensemble: each mask comes from one model."),
        }
    return answers


def _missing(runs: dict[str, JoinedResults]) -> str:
    left_out = sum(len(run.left_out) for run in runs.values())
    text = f"Folders left out for lack of results or patient: {left_out}."
    return f"{text} How empty predicted masks count is defined under Metrics (item 28)."


def _performance(runs: dict[str, JoinedResults]) -> str:
    """Return the mean over patients of each metric of all volumes."""
    parts = []
    for name, run in runs.items():
        of_all = run.intervals[run.intervals["subset"] == "all"]
        means = [
            f"{code(row.metric)} {row.case_avg:.4f}"
            + ("" if np.isnan(row.case_low) else f" ({row.case_low:.4f} to {row.case_high:.4f})")
            for row in of_all.itertuples()
        ]
        parts.append(f"Run {code(name)}: {', '.join(means)}.")
    return f"Mean over patients with its 95 % interval. {' '.join(parts)}"


def _failures(runs: dict[str, JoinedResults]) -> str:
    """Return how many slices have a low Dice score, and the volumes with the lowest mean."""
    parts = []
    for name, run in runs.items():
        dice = run.slices["dice"].dropna()
        worst = run.volumes.dropna(subset="dice_avg").nsmallest(WORST_VOLUMES, "dice_avg")
        named = (f"{code(row.image)} ({row.dice_avg:.4f})" for row in worst.itertuples())
        parts.append(
            f"Run {code(name)}: {count((dice < LOW_DICE).sum(), 'slice')} of {len(dice):,} with a"
            f" Dice score below {LOW_DICE:g}, {(dice == 0).sum():,} of 0; lowest means of a volume:"
            f" {listed(named)}."
        )
    return " ".join(parts)
