"""The options that say what is measured, for every script that measures masks."""

from dataclasses import dataclass

from sam_lungs.study.metrics import METRICS
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError

METRICS_3D = ("dice_3d", "nsd_3d", "hd95_3d")
VOLUME_METRICS = ("lung_slices_dice", *METRICS_3D)
# In the order of their columns and rows.
METRIC_NAMES = (*METRICS, "nsd", "hd95", *VOLUME_METRICS, "one_click")
NEED_SPACING = ("nsd", "hd95", "nsd_3d", "hd95_3d")


def parse_metrics(text: str) -> tuple[str, ...]:
    """Parse metrics separated by commas; return them in a fixed order.

    With a fixed order, two texts that make the same tables have the same fingerprint.
    """
    names = text.split(",")
    for name in names:
        if name not in METRIC_NAMES:
            raise InputError(f"unknown metric {name!r}; the metrics are {', '.join(METRIC_NAMES)}")
    return tuple(name for name in METRIC_NAMES if name in (*METRICS, *names))


def parse_tolerances(text: str) -> tuple[float, ...]:
    """Parse distances in mm separated by commas, each at least 0; return them in order."""
    try:
        tolerances_mm = {float(number) for number in text.split(",")}
    except ValueError:
        tolerances_mm = {-1.0}
    # The names of columns have six digits.
    names = {f"{each:g}" for each in tolerances_mm}
    if not all(0 <= each < float("inf") for each in tolerances_mm) or len(names) < len(
        tolerances_mm
    ):
        raise InputError("give numbers of mm, at least 0, separated by commas, such as 1,2,5")
    return tuple(sorted(tolerances_mm))


@dataclass(frozen=True, kw_only=True)
class MeasurementOptions:
    """The metrics, and what they need."""

    metrics: tuple[str, ...] = option(
        f"metrics: {', '.join(METRIC_NAMES)}; the first two are always reported",
        METRICS,
        "measurement",
        parse=parse_metrics,
        metavar="NAME,NAME",
        shown_default=",".join(METRICS),
        decides=True,
    )
    tolerance_mm: tuple[float, ...] = option(
        "distances between surfaces that still count as agreement, for nsd and nsd_3d",
        (1.0,),
        "measurement",
        parse=parse_tolerances,
        metavar="MM,MM",
        shown_default="1",
        decides=True,
    )

    def check_metrics(self) -> None:
        """Raise `InputError` for an option that would have no effect."""
        if self.tolerance_mm != (1.0,) and not self.measures("nsd", "nsd_3d"):
            raise InputError("--tolerance_mm has no effect; add --metrics nsd or nsd_3d")

    def measures(self, *names: str) -> bool:
        """Return whether any of the metrics is asked for."""
        return any(name in self.metrics for name in names)

    @property
    def needs_spacing(self) -> bool:
        """Whether a metric is measured in mm."""
        return self.measures(*NEED_SPACING)

    @property
    def measures_masks(self) -> bool:
        """Whether a metric needs the predicted masks themselves, not only their areas."""
        return self.measures(*NEED_SPACING, *METRICS_3D)

    @property
    def one_click(self) -> bool:
        """Whether all masks that a model predicts for one point are measured."""
        return self.measures("one_click")
