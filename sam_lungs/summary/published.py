"""The published results of the paper's CT volumes; facts, which come with the code.

Gutiérrez et al., IEEE Access 2024, doi 10.1109/ACCESS.2024.3353142, and its results folder.
"""

from pathlib import Path

import pandas as pd

from sam_lungs.study.results import read_raw_data

PUBLISHED_SLICES = Path(__file__).with_name("published_slices.csv")


def published_slices() -> pd.DataFrame:
    """Return a row for each of the 3,520 slices of the 20 volumes, in full precision.

    Columns `image,slice,jaccard,dice`; names are without `image_`; NaN in slices without lung.
    """
    return read_raw_data(PUBLISHED_SLICES)
