import numpy as np
import pytest
import torch
from conftest import assert_refused

from sam_lungs.checkpoints import load_sam
from sam_lungs.compact import IMAGE_SIZE, build_compact
from sam_lungs.errors import InputError
from sam_lungs.prompts import PromptProtocol, make_prompts
from sam_lungs.training import Settings, Training, mask_loss
from sam_lungs.training_data import (
    PADDING,
    PROMPTS_PER_SLICE,
    augment,
    draw_tasks,
    fit,
    make_pool,
    make_slice,
)

CPU = torch.device("cpu")
SETTINGS = Settings(steps=4, batch_size=2, slices=4, seed=3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), SETTINGS.seed, SETTINGS.slices)


def test_the_pool_is_made_once_and_holds_what_make_slice_gives(tmp_path):
    pool = make_pool(tmp_path, seed=1, slices=2)
    for number in range(2):
        np.testing.assert_array_equal(pool[number], make_slice(1, number))
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    make_pool(tmp_path, seed=1, slices=2)
    assert path.stat().st_mtime_ns == before
    assert not np.array_equal(make_pool(tmp_path, seed=2, slices=2), pool)


@pytest.mark.parametrize("shape", [(300, 512), (512, 300), (256, 256), (100, 90)])
def test_fit_fills_the_longer_side_and_pads_below_and_right(shape):
    labels = np.zeros(shape, dtype=np.uint8)
    labels[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 2
    grey, fitted = fit(np.full((*shape, 3), 200, dtype=np.uint8), labels)
    rows, columns = (round(side * IMAGE_SIZE / max(shape)) for side in shape)
    inside = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
    inside[:rows, :columns] = True
    np.testing.assert_array_equal(fitted < PADDING, inside)
    np.testing.assert_array_equal(grey, np.where(inside, 200, 0))
    assert (fitted == 2).sum() / inside.sum() == pytest.approx((labels == 2).mean(), rel=0.05)


def test_augmented_slices_keep_lung_and_their_form(pool):
    rng = np.random.default_rng(0)
    for number in range(40):
        grey, labels = augment(rng, *pool[number % len(pool)])
        rows, columns = (inside.sum() for inside in (labels[:, 0] < PADDING, labels[0] < PADDING))
        assert max(rows, columns) == IMAGE_SIZE
        assert (labels[:rows, :columns] < PADDING).all()
        assert set(np.unique(labels[:rows, :columns])) <= {0, 1, 2}
        assert not grey[labels == PADDING].any()


def test_tasks_begin_with_the_papers_and_ask_for_what_their_points_are_in(pool):
    rng = np.random.default_rng(0)
    boxed = set()
    for number in range(40):
        grey, labels = pool[number % len(pool)]
        masks = np.where(labels < PADDING, labels, 0)
        tasks = draw_tasks(rng, grey, labels)
        assert len(tasks) == PROMPTS_PER_SLICE
        paper = make_prompts(masks, PromptProtocol())
        np.testing.assert_array_equal(tasks[0].prompts.points_rc, paper.points_rc)
        np.testing.assert_array_equal(tasks[0].mask, masks > 0)
        for task in tasks:
            boxed.add(task.prompts.box_rc is not None)
            assert task.mask.any()
            assert not task.mask[labels == PADDING].any()
            assert task.prompts.labels[0] == 1
            lungs = masks[task.mask] > 0
            assert lungs.all() or not lungs.any(), "lung and something else in one mask"
            positive = task.prompts.points_rc[task.prompts.labels == 1]
            hit = set(masks[tuple(positive.T)].tolist())
            if task.prompts.box_rc is None and 0 not in hit:
                # Without a box, points are all that tells one lung from both.
                np.testing.assert_array_equal(task.mask, np.isin(masks, list(hit)))
    assert boxed == {True, False}


def test_the_loss_by_hand():
    within = torch.tensor([[True, True, True, False]])
    target = torch.tensor([[[1.0, 1, 0, 1]]])
    sure = 30 * (2 * target - 1)
    right = mask_loss(sure, target, torch.tensor([1.0]), within)
    assert right.item() == pytest.approx(0, abs=1e-6)
    # All wrong: focal 20 times the entropy of 30, Dice 1 - 1 / (1 + 2 + 1), Jaccard 0, expected 1.
    wrong = mask_loss(-sure, target, torch.tensor([1.0]), within)
    assert wrong.item() == pytest.approx(20 * 30 + 1 - 1 / 4 + 1, rel=1e-3)


def test_the_loss_falls_on_slices_that_are_seen_again(pool):
    training = Training(Settings(steps=16, batch_size=2, slices=1), CPU)
    losses = [training.take_step(pool[:1]) for _ in range(16)]
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])


def test_a_training_that_was_stopped_ends_like_one_that_was_not(pool, tmp_path):
    undisturbed = Training(SETTINGS, CPU)
    for _ in range(SETTINGS.steps):
        undisturbed.take_step(pool)
    stopped = Training(SETTINGS, CPU)
    for _ in range(2):
        stopped.take_step(pool)
    stopped.save(tmp_path / "state.pth")
    continued = Training(SETTINGS, CPU)
    continued.load(tmp_path / "state.pth")
    while continued.step < SETTINGS.steps:
        continued.take_step(pool)
    for name, weight in undisturbed.average.state_dict().items():
        assert torch.equal(weight, continued.average.state_dict()[name]), name


def test_another_training_is_not_continued(tmp_path):
    Training(SETTINGS, CPU).save(tmp_path / "state.pth")
    with pytest.raises(InputError, match="of a training with"):
        Training(Settings(steps=5), CPU).load(tmp_path / "state.pth")


def test_the_command_makes_a_checkpoint_that_loads(run, tmp_path):
    done = run(
        "sam_lungs.training",
        *("-o", tmp_path / "sam.pth", "--working_folder", tmp_path, "--device", "cpu"),
        *("--steps", 4, "--batch_size", 1, "--slices", 2),
    )
    assert done.returncode == 0, done.stderr
    assert "trained for" in done.stdout
    weights = torch.load(tmp_path / "sam.pth", weights_only=True)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert weights.keys() == build_compact().state_dict().keys()
    load_sam("compact", tmp_path / "sam.pth")


def test_bad_input_of_the_command_is_one_line(run, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(
        run("sam_lungs.training", "-o", tmp_path / "file" / "sam.pth"), "cannot be written"
    )
    assert_refused(run("sam_lungs.training", "--steps", 3, "-o", tmp_path / "sam.pth"), "--steps")
