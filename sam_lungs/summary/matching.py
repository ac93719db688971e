"""Slices, volumes and patients that runs have in common."""

from collections.abc import Iterable

import pandas as pd

from sam_lungs.study.metrics import METRICS, metrics_in, volume_metrics_in
from sam_lungs.summary.statistics import patient_of
from sam_lungs.utils.errors import InputError


def pair_slices(
    first: pd.DataFrame,
    second: pd.DataFrame,
    names: tuple[str, str] = ("published", "reproduced"),
) -> pd.DataFrame:
    """Return the slices with lung that both tables have, matched by image and slice number.

    Images match with the same name, else with and without `image_`; the result has the names of
    `second`.

    first, second: columns `image,slice,jaccard,dice`, NaN in slices without lung.
    names: suffixes of the columns of metrics in the result, as in `dice_published`.

    Raises `InputError` when a volume has a slice twice.
    """
    first = rename_images(first, second["image"])
    first, second = (slices_with_lung(table) for table in (first, second))
    return first.merge(second, on=["image", "slice"], suffixes=tuple(f"_{name}" for name in names))


def pair_volumes(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """Return the volumes that both tables have: volume metrics and `interactions`, by image.

    first, second: column `image`, and perhaps `interactions` and volume metrics; without
        `interactions` they are NaN. `names` and the names of images are as in `pair_slices`.
    """
    first, second = (
        table.reindex(columns=["image", "interactions", *volume_metrics_in(table)])
        for table in (rename_images(first, second["image"]), second)
    )
    pairs = first.merge(second, on="image", suffixes=tuple(f"_{name}" for name in names))
    return pairs.set_index("image")


def slices_with_lung(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns image, slice and those of metrics of the slices with lung.

    Raises `InputError` when a volume has a slice twice.
    """
    check_slices(table)
    return table[["image", "slice", *metrics_in(table)]].dropna(subset=METRICS)


def check_slices(table: pd.DataFrame) -> None:
    """Raise `InputError` when a volume has a slice twice."""
    duplicates = table[table.duplicated(["image", "slice"])]
    if len(duplicates):
        image, number = duplicates.iloc[0][["image", "slice"]]
        raise InputError(f"{image}: has slice {number} twice; process it again")


def rename_images(table: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return a table of images, renamed to those of `names` that differ only in `image_`.

    A name that is in both stays: of `a` and `image_a`, only one can be `a`.
    """
    images = set(table["image"])
    bare = {name.removeprefix("image_"): name for name in set(names) - images}
    renamed = {
        image: bare.get(image.removeprefix("image_"), image) for image in images - set(names)
    }
    return table.assign(image=table["image"].map(lambda image: renamed.get(image, image)))


def cases_of(*volumes: pd.DataFrame) -> pd.Series:
    """Return the case (patient) of each image in tables of volumes, as the first that knows it.

    volumes: columns `image` and `patient`. Images have the names of the first table.
    """
    renamed = [rename_images(table, volumes[0]["image"]) for table in volumes]
    known = pd.concat(renamed).groupby("image", as_index=False)["patient"].first()
    return patient_of(known).set_axis(known["image"])
