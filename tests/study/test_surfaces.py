import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from sam_lungs.study.surfaces import surface_agreement

SHAPES = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)),
)
MASK_PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)).filter(
        lambda masks: masks[0].any() and masks[1].any()
    )
)
SPACINGS_MM = st.lists(st.sampled_from([0.5, 0.7, 1.0, 1.25, 5.0]), min_size=3, max_size=3)
TOLERANCES_MM = (0.0, 0.35, 1.1, 2.3, 6.1)  # no distance that these spacings give, except 0


@pytest.fixture(autouse=True)
def names_that_numpy_2_and_scipy_lack(monkeypatch):
    """surface-distance 0.1 is older than both."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    scipy = SimpleNamespace(filters=ndimage, morphology=ndimage)
    monkeypatch.setattr(surface_distance.metrics, "ndimage", scipy)


def boxes(shape: tuple[int, ...], *corners: tuple[tuple[int, int], ...]) -> list[np.ndarray]:
    masks = [np.zeros(shape, dtype=bool) for _ in corners]
    for mask, corner in zip(masks, corners, strict=True):
        mask[tuple(slice(*pair) for pair in corner)] = True
    return masks


# A second implementation, from the definition.


def brute_force(predicted, reference, spacing_mm, kernel, table):
    """Distances and areas of all elements of both masks, by comparing each with each.

    The areas are those of surface-distance; boxes below check MONAI's by hand.
    """
    elements = []
    for mask in (predicted, reference):
        padded = np.pad(mask, 1)
        found = []
        for corner in np.ndindex(*[size - 1 for size in padded.shape]):
            around = padded[tuple(slice(at, at + 2) for at in corner)]
            if around.any() and not around.all():
                found.append((np.multiply(corner, spacing_mm), table[(around * kernel).sum()]))
        elements.append(found)
    measured = []
    for these, others in (elements, elements[::-1]):
        positions = np.array([position for position, _ in others])
        measured.append(
            [(np.linalg.norm(positions - at, axis=1).min(), area) for at, area in these]
        )
    return measured


def scores(measured, tolerances_mm):
    """NSD and HD95 of lists of (distance, area)."""
    surfaces = [np.transpose(surface) for surface in measured]
    distance, area = np.concatenate(surfaces, axis=1)
    nsd = [area[distance <= tolerance].sum() / area.sum() for tolerance in tolerances_mm]
    percentiles = [
        min(d for d in np.unique(distance) if area[distance <= d].sum() >= 0.949999 * area.sum())
        for distance, area in surfaces
    ]
    return nsd, max(percentiles)


@settings(deadline=None, max_examples=20)
@given(MASK_PAIRS, SPACINGS_MM)
def test_deepmind_and_brute_force_agree_on_any_masks(masks, spacing_mm):
    spacing_mm = spacing_mm[: masks[0].ndim]
    ours = surface_agreement(*masks, spacing_mm, TOLERANCES_MM)

    theirs = surface_distance.compute_surface_distances(*masks, spacing_mm)
    nsd = [
        surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        for tolerance in TOLERANCES_MM
    ]
    assert ours.nsd == pytest.approx(nsd, abs=1e-6)
    # At exactly 95 % rounding decides there; here a little less is enough.
    hd95_mm = surface_distance.compute_robust_hausdorff(theirs, 95 - 1e-4)
    assert ours.hd95_mm == pytest.approx(hd95_mm)

    tables = surface_distance.lookup_tables
    if len(spacing_mm) == 2:
        kernel = tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL
        table = tables.create_table_neighbour_code_to_contour_length(spacing_mm)
    else:
        kernel = tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
        table = tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    nsd, hd95_mm = scores(brute_force(*masks, spacing_mm, kernel, table), TOLERANCES_MM)
    assert ours.nsd == pytest.approx(nsd, abs=1e-6)
    assert ours.hd95_mm == pytest.approx(hd95_mm)


@pytest.mark.parametrize(("axis", "shift_mm"), [(0, 0.7), (1, 1.25), (2, 5.0)])
def test_a_voxel_against_its_neighbour_in_3d(axis, shift_mm):
    predicted, reference = np.zeros((2, 5, 5, 5), dtype=bool)
    predicted[2, 2, 2] = True
    reference[tuple(2 + np.eye(3, dtype=int)[axis])] = True
    # Of the 8 corners of a voxel, with equal areas, 4 are corners of the other one.
    agreement = surface_agreement(
        predicted, reference, (0.7, 1.25, 5.0), (0.0, shift_mm - 0.01, shift_mm)
    )
    assert agreement.nsd == pytest.approx((0.5, 0.5, 1))
    assert agreement.hd95_mm == pytest.approx(shift_mm)


def test_a_box_in_a_larger_box_in_3d():
    small, large = boxes((9, 9, 9), [(2, 6), (2, 6), (2, 6)], [(2, 6), (2, 6), (2, 8)])
    # 4 x 4 x 4 and 4 x 4 x 6 voxels of 1 x 1 x 5 mm. An element in a face of n x m voxels belongs
    # to each of the (n - 1)(m - 1) corners inside it; those on the 12 edges and in the 8 corners
    # are cut off: over an edge runs the diagonal of half a voxel, a corner is a triangle.
    along_z, across, corner = math.sqrt(2) * 5 / 2, math.hypot(5, 1) / 2, math.sqrt(51) / 8

    def area(slices):
        sides = 4 * (3 * (slices - 1) * 5 + (slices - 1) * 2 * along_z / 2)
        return sides, 2 * 9 + 8 * 3 * 2 * across / 2 + 8 * corner

    sides, caps = area(4)
    larger_sides, larger_caps = area(6)
    assert caps == larger_caps
    agreement = surface_agreement(small, large, (1.0, 1.0, 5.0), (0.0,))
    assert agreement.hd95_mm == 10
    total = sides + larger_sides + 2 * caps
    # Common are the sides of the small box and one cap. The rim of its other cap lies in the
    # sides of the large box: of edges and corners in the one, of sides and edges in the other.
    rim = 4 * 3 * across + 4 * corner
    flat_rim = 4 * 3 * 5 + 4 * along_z
    common = 2 * sides + caps + rim + flat_rim
    assert agreement.nsd[0] == pytest.approx(common / total, rel=1e-6)


def test_pixels_by_hand():
    predicted, reference = np.zeros((2, 12, 12), dtype=bool)
    predicted[5, 5] = reference[5, 9] = True
    # One pixel each, four columns of half a millimetre apart; the closest corners are at 1.5 mm.
    agreement = surface_agreement(predicted, reference, (2.0, 0.5), (1.4, 1.5, 2.0))
    assert agreement == ((0, 0.5, 1), 2)
    assert surface_agreement(predicted.T, reference.T, (2.0, 0.5), (5.9, 6.0)) == ((0, 0.5), 8)


def test_outlines_that_agree_in_part():
    (reference, predicted) = boxes((40, 40), [(10, 30), (10, 30)], [(10, 30), (10, 36)])
    agreement = surface_agreement(predicted, reference, (1.0, 1.0), (0.0,))
    # 4 x 19 and 2 x 19 + 2 x 25 elements of 1 mm, and 4 diagonals each in the corners.
    diagonal = math.sqrt(0.5)
    common = 2 * (3 * 19 + 2 * diagonal) + 2 * (1 + diagonal)
    assert agreement.nsd[0] == pytest.approx(common / (76 + 88 + 8 * diagonal))
    assert agreement.hd95_mm == 6


def test_a_tolerance_of_a_multiple_of_the_spacing_counts_the_distance_of_that_multiple():
    predicted, reference = boxes((2, 9), [(0, 1), (0, 1)], [(0, 1), (4, 5)])
    assert 3 * 0.1 > 0.3
    assert surface_agreement(predicted, reference, (0.1, 0.1), (0.3,)).nsd == (0.5,)


@pytest.mark.parametrize(("columns", "hd95_mm"), [(200, 0), (201, 1), (202, 2)])
def test_the_percentile_is_the_smallest_distance_of_95_percent_of_the_length(columns, hd95_mm):
    line, longer = boxes((1, columns), [(0, 1), (0, 190)], [(0, 1), (0, columns)])
    # The outline of 200 columns is 401 mm long. 9 elements on each side and 2 half diagonals are
    # not shared with the line, 19.4 mm. With each column more it is 2 mm longer, all of it beyond.
    assert surface_agreement(line, longer, (1.0, 1.0), ()) == ((), hd95_mm)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_empty_masks(shape):
    empty, full = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    spacing_mm = (1.0,) * len(shape)
    for masks in ((empty, full), (full, empty)):
        agreement = surface_agreement(*masks, spacing_mm, (1.0, 2.0))
        assert agreement.nsd == (0, 0)
        assert math.isnan(agreement.hd95_mm)
    nsd, hd95_mm = surface_agreement(empty, empty, spacing_mm, (1.0, 2.0))
    assert len(nsd) == 2
    assert all(map(math.isnan, (*nsd, hd95_mm)))


@settings(deadline=None, max_examples=40)
@given(MASK_PAIRS, SPACINGS_MM, st.data())
def test_invariants(masks, spacing_mm, data):
    spacing_mm = np.array(spacing_mm[: masks[0].ndim])
    one = surface_agreement(*masks, spacing_mm, TOLERANCES_MM)
    assert list(one.nsd) == sorted(one.nsd)
    assert 0 <= one.nsd[0] <= one.nsd[-1] <= 1
    assert 0 <= one.hd95_mm <= np.linalg.norm(masks[0].shape * spacing_mm)

    def assert_same(agreement, factor=1):
        assert agreement.nsd == pytest.approx(one.nsd, abs=1e-6)
        assert agreement.hd95_mm == pytest.approx(factor * one.hd95_mm)

    assert_same(surface_agreement(*masks[::-1], spacing_mm, TOLERANCES_MM))
    # A factor of 2 is exact in floating point.
    double = surface_agreement(*masks, 2 * spacing_mm, 2 * np.array(TOLERANCES_MM))
    assert_same(double, factor=2)
    axes = data.draw(st.permutations(range(masks[0].ndim)))
    turned = [mask.transpose(axes) for mask in masks]
    assert_same(surface_agreement(*turned, spacing_mm[list(axes)], TOLERANCES_MM))
    # Surface at the border of the array is not lost.
    padded = [np.pad(mask, 2) for mask in masks]
    assert surface_agreement(*padded, spacing_mm, TOLERANCES_MM) == one
    same = surface_agreement(masks[0], masks[0], spacing_mm, TOLERANCES_MM)
    assert same == ((1,) * len(TOLERANCES_MM), 0)


@settings(deadline=None, max_examples=20)
@given(MASK_PAIRS.filter(lambda masks: masks[0].ndim == 2), st.floats(0.1, 5), st.floats(0, 4))
def test_nsd_of_slices_is_that_of_monai(masks, row_mm, tolerance_mm):
    import torch
    from monai.metrics import compute_surface_dice

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from MONAI's own code
        theirs = compute_surface_dice(
            *[torch.from_numpy(mask)[None, None] for mask in masks],
            [tolerance_mm],
            include_background=True,
            spacing=[row_mm, 0.7],
            use_subvoxels=True,
        )
    (ours,) = surface_agreement(*masks, (row_mm, 0.7), (tolerance_mm,)).nsd
    assert np.float32(ours) == theirs.item()  # in single precision
