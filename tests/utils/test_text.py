from sam_lungs.utils.text import count


def test_only_one_is_singular():
    counted = [count(number, "slice") for number in (0, 1, 2, 20_000)]
    assert counted == ["0 slices", "1 slice", "2 slices", "20,000 slices"]
