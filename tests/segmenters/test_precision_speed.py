"""A precision that is slower than float32 on this processor is refused, unless it is allowed."""

import pytest
import torch
from conftest import chest, save_nifti

from benchmarks import machine
from sam_lungs.segmenters import devices
from sam_lungs.segmenters.devices import check_speed, slowdown
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.options import Options
from sam_lungs.study.setup import load_segmenters
from sam_lungs.utils.errors import InputError

CPU = torch.device("cpu")
FILES = {"image_file_path": ["a.nii"], "masks_file_path": ["m.nii"]}


@pytest.fixture
def ratio(monkeypatch):
    """Set the measured ratio."""
    return lambda value: monkeypatch.setattr(devices, "slowdown", lambda precision: value)


def options(**given) -> Options:
    return Options(**FILES, model="compact", device="cpu", **given)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_slower_precision_is_refused_with_the_ratio(ratio, precision):
    ratio(4.64)
    words = rf"^--precision {precision}: .* takes 4\.6 times as long .* or add --allow_slow$"
    with pytest.raises(InputError, match=words):
        load_segmenters(options(precision=precision))
    with pytest.raises(InputError, match=words):
        load_segmenters(ExploreOptions(**FILES, kind=["map"], model="compact", precision=precision))
    # Both remedies.
    load_segmenters(options())
    load_segmenters(options(precision=precision, allow_slow=True))


def test_a_faster_precision_is_used(ratio):
    for fast in (0.3, 1.0, 1.4):
        ratio(fast)
        load_segmenters(options(precision="bfloat16"))


def test_a_gpu_float32_and_baselines_are_not_measured(monkeypatch):
    monkeypatch.setattr(devices, "slowdown", lambda precision: pytest.fail("measured"))
    check_speed("bfloat16", [torch.device("cuda", 0)])
    check_speed("float16", [torch.device("mps")])
    check_speed("float32", [CPU])
    several = Options(**FILES, model="compact,box", precision="bfloat16")
    load_segmenters(several.for_each_model()[1])


def test_permission_without_effect_is_refused():
    with pytest.raises(InputError, match="--allow_slow has no effect without --precision; leave"):
        options(allow_slow=True)


def test_the_ratio_is_that_of_the_shortest_products(monkeypatch):
    slowdown.cache_clear()
    # Seconds of the products in float32 and bfloat16, in turn, after one to start.
    seconds = iter([9, 2, 20, 1, 12])
    now = 0.0

    def product(one: torch.Tensor, other: torch.Tensor) -> None:
        nonlocal now
        now += next(seconds) / 100

    monkeypatch.setattr(devices, "linear", product)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: now)
    assert slowdown("bfloat16") == pytest.approx(12)
    assert slowdown("bfloat16") == pytest.approx(12)  # measured once
    slowdown.cache_clear()


def test_a_study_is_refused_in_one_line(tmp_path, run):
    for kind, array in zip(("image", "masks"), chest(), strict=True):
        save_nifti(tmp_path / f"{kind}.nii", array)
    files = ("-i", "image.nii", "-m", "masks.nii", "--model", "compact", "--device", "cpu")
    done = run("process_image.py", *files, "--precision", "bfloat16")
    slow = slowdown("bfloat16") > devices.SLOW
    assert done.returncode == slow, done.stderr
    assert ("--allow_slow" in done.stderr) == slow
    assert (tmp_path / "results").exists() != slow


def test_the_peak_of_slow_products_is_measured_on_small_ones(monkeypatch):
    sizes = []

    def slow(product, device: torch.device) -> float:
        sizes.append(len(product.args[0]))
        return 0.02 * sizes[-1] / 256

    monkeypatch.setattr(machine, "seconds_of", slow)
    assert machine.matmul_peak(CPU, torch.float32) == pytest.approx(2 * 2048**3 / 0.16)
    assert sorted(set(sizes)) == [256, 512, 1024, 2048]
    monkeypatch.setattr(machine, "seconds_of", lambda *_: 1)
    assert machine.matmul_peak(CPU, torch.bfloat16) == 2 * 256**3
