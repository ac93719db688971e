"""Label masks of a volume -> the prompts of its slices, drawn or interpolated.

With `PromptProtocol.every` K = 1 the prompts of each slice with an object are drawn in it. With a
greater K they are drawn in the object's first slice, in every K-th of its slices after that and in
its last one, and linearly interpolated in all slices between, also in those without the object:
someone who looks at every K-th slice does not see them.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sam_lungs.prompts.protocols import PromptProtocol, Prompts
from sam_lungs.prompts.rules import PromptParts, make_parts


class SlicePrompts(NamedTuple):
    """The prompts of a slice.

    united: those whose predicted masks are to be united. interactions: how many were drawn in this
    slice, see `Prompts.interactions`; 0 if all are interpolated or those of another slice.
    """

    united: list[Prompts]
    interactions: int


@dataclass(frozen=True)
class _Object:
    """What is prompted together: one label, or None for all labels.

    drawn: indices of the slices in which prompts are drawn, sorted. slices: of all that get any.
    """

    label: int | None
    drawn: list[int]
    slices: Sequence[int]


class VolumePrompts:
    """The prompts of the slices of a volume.

    sources: {index of a slice that gets prompts: index of the slice whose prompts it gets}, sorted.
        An index that is its own source may have interpolated prompts.
    """

    def __init__(
        self,
        masks: np.ndarray,
        slices_of_labels: Mapping[int, Sequence[int]],
        protocol: PromptProtocol,
        objects: str,
        empty_slices: str = "skip",
    ) -> None:
        """masks: (rows, columns, slices) integer labels, 0 for background; not only background.

        slices_of_labels: {label: indices of the slices with it, sorted}, sorted by label.
        objects: `together`: all labels are one object; `apart`: each label is prompted alone, as if
            there were no others.
        empty_slices: `skip` leaves out the slices for which no prompts are drawn or interpolated.
            `nearest` gives them the prompts of the nearest slice that has some; of two equally near
            slices, of the one with the lower index.
        """
        self._masks = masks
        self._protocol = protocol
        self._parts: dict[tuple[int | None, int], PromptParts] = {}
        if objects == "together":
            groups = {None: list(slices_of_labels.values())}
        else:
            groups = {label: [slices] for label, slices in slices_of_labels.items()}
        self._objects = [
            _make_object(label, of_labels, protocol.every) for label, of_labels in groups.items()
        ]
        own = np.unique(np.concatenate([each.slices for each in self._objects]))
        self.sources = {index: index for index in own.tolist()}
        if empty_slices == "nearest":
            self.sources = {
                index: int(own[np.argmin(np.abs(own - index))]) for index in range(masks.shape[2])
            }

    def at(self, index: int) -> SlicePrompts:
        """Return the prompts of a slice, none without a source; several threads may call this."""
        source = self.sources.get(index)
        prompts, interactions = [], 0
        for each in self._objects:
            if source not in each.slices:
                continue
            after = bisect_left(each.drawn, source)
            upper = each.drawn[after]
            if upper == source:
                prompts.append(self._draw(each.label, source).joined)
                interactions += prompts[-1].interactions if source == index else 0
            else:
                lower = each.drawn[after - 1]
                ends = self._draw(each.label, lower), self._draw(each.label, upper)
                parts = interpolate(*ends, source - lower, upper - lower)
                prompts.append(parts.joined)
        return SlicePrompts(prompts, interactions)

    def _draw(self, label: int | None, index: int) -> PromptParts:
        # Kept, because the slices between two drawn ones need the same parts.
        if (label, index) not in self._parts:
            masks = self._masks[:, :, index]
            shown = masks if label is None else np.where(masks == label, masks, 0)
            self._parts[label, index] = make_parts(shown, self._protocol)
        return self._parts[label, index]


def interpolate(lower: PromptParts, upper: PromptParts, step: int, steps: int) -> PromptParts:
    """Return the prompts `step` slices above the lower of two slices that are `steps` apart.

    Coordinates are rounded to the nearest pixel, halves up. A label in both slices keeps its points
    in their order; if it has more in one slice, it gets those of the nearer slice, of the lower one
    if both are equally near. A label in one slice only gets none. If this leaves neither points nor
    a box, all positive points are those of the nearer slice.
    """

    def linear(low: np.ndarray, up: np.ndarray) -> np.ndarray:
        # Integers are exact. With halves up, edges that are a pixel apart stay so.
        return (2 * (low * (steps - step) + up * step) + steps) // (2 * steps)

    nearer = lower if 2 * step <= steps else upper
    points_rc = {}
    for label in lower.points_rc.keys() & upper.points_rc.keys():
        low, up = lower.points_rc[label], upper.points_rc[label]
        points_rc[label] = linear(low, up) if len(low) == len(up) else nearer.points_rc[label]
    box_rc = None if lower.box_rc is None else linear(lower.box_rc, upper.box_rc)
    if not points_rc and box_rc is None:
        points_rc = nearer.points_rc
    return PromptParts(
        dict(sorted(points_rc.items())), linear(lower.negatives_rc, upper.negatives_rc), box_rc
    )


def _make_object(label: int | None, of_labels: list[Sequence[int]], every: int) -> _Object:
    """of_labels: the slices of each label of the object."""
    slices = sorted(set().union(*of_labels))
    if every == 1:
        return _Object(label, slices, slices)
    ends = {end for of_label in of_labels for end in (of_label[0], of_label[-1])}
    drawn = sorted(ends.union(slices[::every]))
    return _Object(label, drawn, range(drawn[0], drawn[-1] + 1))
