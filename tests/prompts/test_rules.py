"""The prompt rules, compared with a second implementation that works pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.data.readers import read_volume
from sam_lungs.prompts.protocols import POINTS, PROTOCOLS, PromptProtocol
from sam_lungs.prompts.rules import make_prompts

PAPER = PromptProtocol()


@st.composite
def label_masks(draw) -> np.ndarray:
    """Return masks of many kinds: noise, lines, rings, crescents, fragments, single pixels."""
    rows, columns = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    masks = np.zeros((rows, columns), dtype=np.uint8)
    for label in draw(st.lists(st.sampled_from([1, 2, 3, 7]), min_size=1, max_size=4)):
        kind = draw(st.sampled_from(["noise", "line", "ring", "crescent", "block"]))
        row, column = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
        size = draw(st.integers(1, 6))
        distance = np.hypot(*(np.indices(masks.shape) - np.array([row, column])[:, None, None]))
        if kind == "noise":
            masks[draw(arrays(bool, masks.shape))] = label
        elif kind == "line":
            masks[(row, slice(None)) if size % 2 else (slice(None), column)] = label
        elif kind == "ring":
            masks[(distance > size - 1) & (distance < size + 1)] = label
        elif kind == "crescent":
            hole = np.roll(distance, size // 2, axis=size % 2) < size
            masks[(distance < size) & ~hole] = label
        else:
            masks[row : row + size, column : column + draw(st.integers(1, 6))] = label
    if not masks.any():
        masks[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = 1
    return masks


def point_by_the_rules(label: np.ndarray, region: np.ndarray) -> tuple[int, int]:
    """Move the centroid of a region into the label."""
    rows, columns = label.shape
    centre = centroid(region)
    row, column = int(centre[0]), int(centre[1])
    if not label[row, column]:
        left = [(row, c) for c in range(column) if label[row, c]]
        right = [(row, c) for c in range(column + 1, columns) if label[row, c]]
        above = [(r, column) for r in range(row) if label[r, column]]
        below = [(r, column) for r in range(row + 1, rows) if label[r, column]]
        best = left
        for other in (right, above, below):
            if len(other) > len(best):
                best = other
        if best:
            row, column = best[len(best) // 2]
        else:
            row, column = min(
                pixels_of(label), key=lambda p: (p[0] - centre[0]) ** 2 + (p[1] - centre[1]) ** 2
            )

    def steps(row_step: int, column_step: int) -> int:
        count = 0
        while (
            0 <= row + row_step * (count + 1) < rows
            and 0 <= column + column_step * (count + 1) < columns
            and label[row + row_step * (count + 1), column + column_step * (count + 1)]
        ):
            count += 1
        return count

    left, right, above, below = steps(0, -1), steps(0, 1), steps(-1, 0), steps(1, 0)
    if left + 1 + right > above + 1 + below:
        return row, column + (right - left + 1) // 2
    return row + (below - above + 1) // 2, column


def pixels_of(mask: np.ndarray) -> list[tuple[int, int]]:
    rows, columns = mask.shape
    return [(r, c) for r in range(rows) for c in range(columns) if mask[r, c]]


def centroid(mask: np.ndarray) -> tuple[float, float]:
    pixels = pixels_of(mask)
    return sum(r for r, _ in pixels) / len(pixels), sum(c for _, c in pixels) / len(pixels)


def regions_by_the_rules(label: np.ndarray) -> list[np.ndarray]:
    """Fill the holes of a label; return its 4-connected regions."""
    outside = four_connected(np.pad(~label, 1, constant_values=True), (0, 0))[1:-1, 1:-1]
    waiting, regions = ~outside, []
    while waiting.any():
        regions.append(four_connected(waiting, pixels_of(waiting)[0]))
        waiting = waiting & ~regions[-1]
    return regions


def four_connected(mask: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """The pixels of a mask that are reached from a pixel of it, row by row and column by column."""
    reached, waiting = np.zeros_like(mask), [start]
    while waiting:
        r, c = waiting.pop()
        if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and mask[r, c] and not reached[r, c]:
            reached[r, c] = True
            waiting += [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
    return reached


@given(label_masks())
def test_positive_points_follow_the_rules_and_lie_in_their_label(masks):
    prompts = make_prompts(masks, PAPER)
    labels = np.unique(masks[masks > 0])
    expected = [point_by_the_rules(masks == label, masks == label) for label in labels]
    assert prompts.points_rc[:-1].tolist() == [list(point) for point in expected]
    assert [masks[tuple(point)] for point in prompts.points_rc[:-1]] == labels.tolist()
    assert prompts.labels.tolist() == [1] * len(labels) + [0]


@given(label_masks())
def test_the_box_is_tight_and_the_negative_point_is_its_centre(masks):
    prompts = make_prompts(masks, PAPER)
    top, left, bottom, right = prompts.box_rc
    inside = np.zeros(masks.shape, dtype=bool)
    inside[top:bottom, left:right] = True
    assert not masks[~inside].any()
    for edge in (masks[top], masks[bottom - 1], masks[:, left], masks[:, right - 1]):
        assert edge.any()
    centre = [top + (bottom - top) // 2, left + (right - left) // 2]
    assert prompts.points_rc[-1].tolist() == centre


def assert_contours_follow_the_rules(masks: np.ndarray) -> None:
    """The order of a label's points is free."""
    moved, kept = [], []
    for value in np.unique(masks[masks > 0]):
        label = masks == value
        for region in regions_by_the_rules(label):
            moved.append(point_by_the_rules(label, region))
            kept.append(tuple(int(coordinate) for coordinate in centroid(region)))
    for points, expected in (("contours", moved), ("contours_centroid", kept)):
        prompts = make_prompts(masks, PromptProtocol(points=points, negative="none"))
        assert prompts.labels.all()
        assert sorted(map(tuple, prompts.points_rc.tolist())) == sorted(expected)


@given(label_masks())
def test_contours_follow_the_rules(masks):
    assert_contours_follow_the_rules(masks)


def test_contours_follow_the_rules_in_thousands_of_masks():
    """Noise of every density: holes, diagonals, regions in holes, pixels at the border."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        masks = rng.integers(1, 4, rng.integers(1, 9, 2))
        masks[rng.random(masks.shape) > rng.random()] = 0
        if masks.any():
            assert_contours_follow_the_rules(masks)


@given(label_masks())
def test_a_centroid_point_stays_at_the_centroid(masks):
    prompts = make_prompts(masks, PromptProtocol(points="centroid"))
    for point, label in zip(prompts.points_rc, np.unique(masks[masks > 0]), strict=False):
        assert point.tolist() == np.argwhere(masks == label).mean(axis=0).astype(int).tolist()


def drawing(*rows: str) -> np.ndarray:
    return np.array([[int(pixel) for pixel in row.replace(".", "0")] for row in rows])


@pytest.mark.parametrize(
    ("masks", "point_rc"),
    [
        (drawing("1"), (0, 0)),
        (drawing("11"), (0, 1)),  # runs of even length: the later of the two middle pixels
        (drawing("1", "1"), (1, 0)),
        (drawing("111", "1..", "1.."), (1, 0)),  # runs that tie: along the column
        (drawing("11111", ".1...", ".1...", ".1..."), (0, 2)),  # the row's run is longer
        (
            drawing("11111", ".1...", ".1...", ".1...", ".1..."),
            (2, 1),
        ),  # now the column's run is longer
        (
            drawing("1..1", "1..1", "1111"),
            (1, 0),
        ),  # outside, one pixel on each side: left
        (drawing("1.11"), (0, 3)),  # outside: right has more, the second is its middle
        (drawing(".1.", "1.1", ".1."), (1, 0)),  # one pixel in each direction: the left one
        (
            drawing("1..", "...", "..1"),
            (0, 0),
        ),  # nothing in any direction: the nearest
    ],
)
def test_points_by_hand(masks, point_rc):
    assert make_prompts(masks, PAPER).points_rc[0].tolist() == list(point_rc)


@pytest.mark.parametrize(
    ("masks", "moved", "kept"),
    [
        # Pixels that touch at a corner are two regions.
        (drawing("1.", ".1"), [(0, 0), (1, 1)], [(0, 0), (1, 1)]),
        # A hole counts for the centroid, but it does not carry the label; the left side is next.
        (drawing("111", "1.1", "111"), [(1, 0)], [(1, 1)]),
        # The run of pixels through a region's point goes on in the next region of the label.
        (drawing("11.", "..1", "11."), [(0, 1), (1, 2), (2, 1)], [(0, 0), (1, 2), (2, 0)]),
        # A region inside a hole of its own label has no point of its own.
        (
            drawing("11111", "1...1", "1.1.1", "1...1", "11111"),
            [(2, 2)],
            [(2, 2)],
        ),
        # A second label in the hole of a first one has a point.
        (drawing("111", "121", "111"), [(1, 0), (1, 1)], [(1, 1), (1, 1)]),
    ],
)
def test_contours_by_hand(masks, moved, kept):
    for points, expected in (("contours", moved), ("contours_centroid", kept)):
        prompts = make_prompts(masks, PromptProtocol(points=points, negative="none"))
        assert prompts.points_rc.tolist() == [list(point) for point in expected]


def test_a_negative_point_at_a_centre_moves_down_and_stops_at_the_border():
    masks = drawing("....", ".11.", ".11.", "....", "....")
    for rows, row in ((0, 2), (2, 4), (45, 4), (-1, 1), (-45, 0)):
        for negative in ("box_center", "slice_center"):
            prompts = make_prompts(masks, PromptProtocol(PAPER.points, negative, rows))
            assert prompts.points_rc[-1].tolist() == [row, 2]


def test_the_negative_point_at_the_slice_centre_ignores_the_masks():
    for masks in (drawing("1....", ".....", "....."), drawing("....", "...1")):
        prompts = make_prompts(masks, PromptProtocol(negative="slice_center"))
        assert prompts.points_rc[-1].tolist() == [masks.shape[0] // 2, masks.shape[1] // 2]


def test_negative_points_of_ones_own_stay_where_they_are():
    protocol = PromptProtocol(negative=((1, 0), (0, 3)))
    prompts = make_prompts(drawing(".12.", "...."), protocol)
    assert prompts.points_rc.tolist() == [[0, 1], [0, 2], [1, 0], [0, 3]]
    assert prompts.labels.tolist() == [1, 1, 0, 0]


def test_prompts_that_are_switched_off_are_left_out():
    masks = drawing(".12.")
    prompts = make_prompts(masks, PromptProtocol(negative="none", box=False))
    assert prompts.box_rc is None
    assert prompts.labels.tolist() == [1, 1]
    assert prompts.points_rc.tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize("points", [each for each in POINTS if each != "none"])
def test_touching_labels_get_a_point_each(points):
    prompts = make_prompts(drawing("1122", "1122"), PromptProtocol(points=points, negative="none"))
    assert len(prompts.points_rc) == 2


@pytest.mark.parametrize(
    ("name", "points_rc", "box_rc"),
    [
        ("coronacases_001_slice_122", [(295, 347), (330, 164), (330, 252)], (217, 98, 444, 406)),
        (
            "radiopaedia_14_85914_0_slice_000",
            [(272, 459), (274, 253), (259, 377)],
            (213, 206, 305, 549),
        ),
    ],
)
def test_real_slices_give_the_authors_prompts(real_data, name, points_rc, box_rc):
    masks = read_volume(real_data / f"masks_{name}.nii.gz").array[:, :, 0]
    prompts = make_prompts(masks, PAPER)
    assert [tuple(point) for point in prompts.points_rc] == points_rc
    assert tuple(prompts.box_rc) == box_rc


def test_a_box_only_has_no_points():
    prompts = make_prompts(drawing(".12.", "...."), PROTOCOLS["box_only"])
    assert (prompts.points_rc.shape, prompts.labels.shape) == ((0, 2), (0,))
    assert prompts.points_xy.shape == (0, 2)
    assert prompts.box_rc.tolist() == [0, 1, 1, 3]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_kinds_of_a_protocol_are_those_of_its_prompts(name):
    prompts = make_prompts(drawing(".12.", "...."), PROTOCOLS[name])
    given = {"points": 1 in prompts.labels, "negative": 0 in prompts.labels}
    given["box"] = prompts.box_rc is not None
    assert PROTOCOLS[name].kinds == {kind for kind in given if given[kind]}
