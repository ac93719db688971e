"""Names and folders of the files of an exploration.

<study folder>/explore/<kind>/<protocol>/<volume>/    the results of one volume
debug/explore/<kind>/<protocol>/<volume>/             beside the study folder: maps of `--slice`

<protocol> as in `study.layout`. `run.json` and `unfinished/` as in a results folder.
"""

from pathlib import Path

EXPLORE_FOLDER = "explore"
VALUES_NAME = "values.csv"
SUMMARY_NAME = "summary.csv"
MAPS_FOLDER = "maps"


def exploration_folder(study_folder: Path, kind: str, protocol: str, name: str = "") -> Path:
    """Return the folder of a volume's exploration, or without a name that of all volumes."""
    return study_folder / EXPLORE_FOLDER / kind / protocol / name


def map_name(index: int) -> str:
    """Return the file name of the picture of the maps of a slice."""
    return f"slice_{index}_map.png"


def map_arrays_name(index: int) -> str:
    """Return the file name of the maps of a slice as arrays."""
    return f"slice_{index}_map.npz"
