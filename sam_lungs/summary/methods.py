"""Results folders -> `methods/`: a methods text, a reporting checklist and tables to deposit."""

from pathlib import Path

from sam_lungs.study.layout import METHODS_FOLDER
from sam_lungs.summary import checklist, compare, deposit
from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.methods_sections import describe
from sam_lungs.summary.methods_wording import References
from sam_lungs.utils.files import atomic_write

METHODS_NAME = "methods.md"
CHECKLIST_NAME = "checklist.md"
TABLES_FOLDER = "tables"
NOTICE = (
    "Written from the run records (run.json) and the tables of this study. What they do not hold is"
    ' called "not recorded", and is for the authors to add.'
)


def write_methods(results_folder: Path, runs: dict[str, JoinedResults]) -> Path:
    """Write `methods/` into a results folder: `methods.md`, `checklist.md` and `tables/`.

    runs: the study first, then those it is compared with; see `compare.read_runs`.

    The same results give the same bytes. No file holds a path or the name of a machine. Returns the
    path of `methods.md`. Raises `InputError` as `compare.compare_runs` does, and when a file cannot
    be written.
    """
    comparison = compare.compare_runs(runs) if len(runs) > 1 else None
    references = References()
    sections = describe(runs, comparison, references)
    paragraphs = [f"**{title}.** {text}" for title, text in sections.items()]
    text = ["# Methods", NOTICE, *paragraphs, "## References", "\n".join(references.lines)]
    folder = results_folder / METHODS_FOLDER
    contents = {
        METHODS_NAME: "\n\n".join(text) + "\n",
        CHECKLIST_NAME: checklist.fill(sections, runs),
    }
    for name, content in contents.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(content, "utf-8")
    deposit.write_deposit(folder / TABLES_FOLDER, runs, comparison)
    return folder / METHODS_NAME
