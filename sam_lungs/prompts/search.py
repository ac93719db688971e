"""A search for the prompts with the best score: an oracle that knows the reference mask.

The best prompts found within a budget are a lower bound of what the best prompts reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sam_lungs.prompts.grid import with_click
from sam_lungs.prompts.perturb import jitter
from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.prompts.sampling import random_points, surroundings

Score = Callable[[Sequence[Prompts]], np.ndarray]


class Found(NamedTuple):
    """The best prompts, their value, and the values of all evaluations in their order."""

    prompts: Prompts
    value: float
    values: np.ndarray


def search_best(
    score: Score,
    start: Prompts,
    mask: np.ndarray,
    most: tuple[int, int],
    budget: int,
    rng: np.random.Generator,
    margin_px: int,
    population: int = 16,
) -> Found:
    """Return the prompts with the best score that a hill climbing found.

    score: returns the values, (prompts,) float, of a sequence of prompts.
    start: the first prompts that are scored, so the result is never worse. A box is searched for
        if they have one.
    mask: (rows, columns) bool, the prompted object; not empty.
    most: how many positive and negative points the search may use. More points of `start` stay
        until a move drops them.
    budget: number of evaluations, at least 1.
    margin_px: new negative points lie in the bounding box of the mask, enlarged by this on each
        side, and outside the mask; new positive ones lie in the mask.
    population: how many prompts are scored at a time; at the end fewer, if the budget is not a
        multiple of it.

    Each round changes the best prompts so far into a population, by one or two moves each: a point,
    or the box, is shifted by Gaussian noise of `step` pixels per coordinate; a point jumps to a
    random pixel; a point is added; a point is dropped. At first `step` is a quarter of the mean
    side of the mask's bounding box. It is halved after a round that found nothing better, and
    starts again when it is below 1 pixel. Prompts are replaced only by better ones. A longer search
    begins with the evaluations of a shorter one, if the shorter budget is a multiple of
    `population`.
    """
    moves = _Moves(mask, most, rng, margin_px)
    best, best_value, step = start, -np.inf, moves.first_step
    values: list[float] = []
    while len(values) < budget:
        count = min(population, budget - len(values))
        prompts = [] if values else [start]
        prompts += [moves.change(best, step) for _ in range(count - len(prompts))]
        scores = np.asarray(score(prompts), dtype=float)
        values += scores.tolist()
        top = int(np.argmax(scores))
        if scores[top] > best_value:
            best, best_value = prompts[top], float(scores[top])
        else:
            step = step / 2 if step >= 2 else moves.first_step
    return Found(best, best_value, np.array(values))


class _Moves:
    """Random changes of prompts, within the limits of a search."""

    def __init__(
        self, mask: np.ndarray, most: tuple[int, int], rng: np.random.Generator, margin_px: int
    ) -> None:
        box_rc = make_prompts(mask.astype(np.uint8), PROTOCOLS["box_only"]).box_rc
        self._size_rc, self._rng = mask.shape, rng
        # Where new points may lie, and how many there may be, by label.
        self._areas = {1: mask, 0: surroundings(mask, box_rc, margin_px)}
        self._most = {1: most[0], 0: most[1]}
        self.first_step = float((box_rc[2:] - box_rc[:2]).mean()) / 4

    def change(self, prompts: Prompts, step: float) -> Prompts:
        """Return prompts after one or two moves."""
        for _ in range(self._rng.integers(1, 3)):
            move = self._rng.choice([self._shift, self._jump, self._add, self._drop])
            prompts = move(prompts, step)
        return prompts

    def _shift(self, prompts: Prompts, step: float) -> Prompts:
        shifted = jitter(prompts, (step, step), self._rng, self._size_rc)
        count = len(prompts.labels)
        chosen = self._rng.integers(count + (prompts.box_rc is not None))
        if chosen == count:
            return replace(prompts, box_rc=shifted.box_rc)
        points_rc = prompts.points_rc.copy()
        points_rc[chosen] = shifted.points_rc[chosen]
        return replace(prompts, points_rc=points_rc)

    def _jump(self, prompts: Prompts, step: float) -> Prompts:
        if not len(prompts.labels):
            return self._shift(prompts, step)
        chosen = int(self._rng.integers(len(prompts.labels)))
        return self._put(prompts, int(prompts.labels[chosen]), [chosen])

    def _add(self, prompts: Prompts, step: float) -> Prompts:
        label = int(self._rng.integers(2))
        if np.count_nonzero(prompts.labels == label) >= self._most[label]:
            return self._shift(prompts, step)
        return self._put(prompts, label, [])

    def _drop(self, prompts: Prompts, step: float) -> Prompts:
        """Drop a point, but not the last positive one if there is no box."""
        droppable = np.ones(len(prompts.labels), dtype=bool)
        if prompts.box_rc is None and np.count_nonzero(prompts.labels) == 1:
            droppable = prompts.labels == 0
        if not droppable.any():
            return self._shift(prompts, step)
        kept = np.arange(len(droppable)) != self._rng.choice(np.flatnonzero(droppable))
        return replace(prompts, points_rc=prompts.points_rc[kept], labels=prompts.labels[kept])

    def _put(self, prompts: Prompts, label: int, replaced: list[int]) -> Prompts:
        """Put a new point in place of others; without an area for it, return the same prompts."""
        points_rc = random_points(self._areas[label], 1, self._rng)
        if not len(points_rc):
            return prompts
        return with_click(prompts, points_rc[0], label, replaced)
