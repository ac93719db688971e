import numpy as np

from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol, Prompts


def test_xy_swaps_rows_and_columns():
    prompts = Prompts(np.array([[1, 2], [3, 4]]), np.array([1, 0]), np.array([5, 6, 7, 8]))
    assert prompts.points_xy.tolist() == [[2, 1], [4, 3]]
    assert prompts.box_xyxy.tolist() == [6, 5, 8, 7]


def test_xy_of_prompts_without_points_or_box():
    no_points, no_labels = np.empty((0, 2), dtype=int), np.empty(0, dtype=int)
    assert Prompts(no_points, no_labels, np.array([5, 6, 7, 8])).points_xy.shape == (0, 2)
    assert Prompts(np.array([[1, 2]]), np.array([1]), None).box_xyxy is None


def test_the_default_is_the_paper_and_all_protocols_differ():
    assert PROTOCOLS["paper"] == PromptProtocol()
    assert len(set(PROTOCOLS.values())) == len(PROTOCOLS)
