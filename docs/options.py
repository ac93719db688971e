"""Write docs/options.md, a table of the options of each script, from the options dataclasses.

python -m docs.options
"""

import dataclasses
import importlib
from pathlib import Path

from sam_lungs.utils.cli import option_names, shown_default

PAGE = Path(__file__).with_suffix(".md")
# Command -> the module that has its options.
COMMANDS = {
    "nifti_to_numpy.py": "nifti_to_numpy",
    "process_image.py": "process_image",
    "explore_prompts.py": "explore_prompts",
    "score_masks.py": "score_masks",
    "join_results.py": "join_results",
    "make_report.py": "make_report",
    "compare_runs.py": "compare_runs",
    "python -m sam_lungs.data.zenodo": "sam_lungs.data.zenodo",
    "python -m sam_lungs.data.montgomery": "sam_lungs.data.montgomery",
    "python -m sam_lungs.segmenters.checkpoints": "sam_lungs.segmenters.checkpoints",
    "python -m sam_lungs.summary.reproduction": "sam_lungs.summary.reproduction",
    "python -m sam_lungs.summary.figure_3": "sam_lungs.summary.figure_3",
    "python -m sam_lungs.synthetic.phantom": "sam_lungs.synthetic.phantom",
    "python -m sam_lungs.synthetic.training": "sam_lungs.synthetic.training",
}
INTRODUCTION = """# Options

`python -m docs.options` writes this page from the code. `--help` of each command prints the same.

- `-` and `_` are the same in option names: `--dry-run` is `--dry_run`.
- Every default reproduces the paper.
- A mistake on the command line gives one line on standard error and exit status 1.
- `--version` prints the version.
- `--config FILE` reads options by their names from a YAML file ([running](running.md)). The command
  line overrules it; `--no_report` turns off a switch of the file.
"""


def options_page() -> str:
    """Return the text of docs/options.md."""
    parts = [INTRODUCTION]
    for command, module in COMMANDS.items():
        parts.append(f"## `{command}`\n\n{options_table(_options_class(module))}")
    return "\n".join(parts)


def options_table(options_class: type) -> str:
    """Return a Markdown table of the options of a dataclass."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for each in dataclasses.fields(options_class):
        names = ", ".join(f"`{name}`" for name in option_names(each))
        shown = shown_default(each)
        is_required = each.default is dataclasses.MISSING
        default = "required" if is_required else f"`{shown}`" if shown else ""
        meaning = each.metadata["help"]
        if each.metadata["choices"]:
            meaning += f" ({', '.join(f'`{choice}`' for choice in each.metadata['choices'])})"
        rows.append(f"| {names} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _options_class(module: str) -> type:
    """Return the dataclass in a module whose fields are all command-line options."""
    found = [
        each
        for each in vars(importlib.import_module(module)).values()
        if isinstance(each, type)
        and dataclasses.is_dataclass(each)
        and all("group" in field.metadata for field in dataclasses.fields(each))
    ]
    # The module's own, or else an imported one.
    return max(found, key=lambda each: each.__module__ == module)


if __name__ == "__main__":
    PAGE.write_text(options_page())
