import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_refused
from faults import FAULTS, break_everywhere, contents, damaged, every

from sam_lungs.prompts.rules import PromptProtocol, make_prompts
from sam_lungs.segmenters.checkpoints import load_sam
from sam_lungs.segmenters.sam_compact import IMAGE_SIZE, build_compact
from sam_lungs.synthetic import training_pool
from sam_lungs.synthetic.training import Settings, Training, mask_loss, train
from sam_lungs.synthetic.training_data import (
    PADDING,
    PROMPTS_PER_SLICE,
    augment,
    draw_tasks,
    fit,
    make_slice,
)
from sam_lungs.synthetic.training_pool import make_pool
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import open_locked, read_signed, write_signed
from sam_lungs.utils.signals import Stop

TRAINING = "sam_lungs.synthetic.training"
CPU = torch.device("cpu")
SETTINGS = Settings(steps=4, batch_size=2, slices=4, seed=3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), SETTINGS.seed, SETTINGS.slices, Stop())


@pytest.fixture
def shards_of_two(monkeypatch):
    """Small shards, made in this process."""
    monkeypatch.setattr(training_pool, "SHARD_SLICES", 2)
    monkeypatch.setattr(
        training_pool,
        "_make_slices",
        lambda seed, numbers: (make_slice(seed, number) for number in numbers),
    )


def start(*arguments):
    """Start Python as a shell does: it hears Ctrl-C, and so do the processes it starts."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path, process):
    """Wait until a process has made a file."""
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_pool_is_made_once_and_holds_what_make_slice_gives(tmp_path):
    pool = make_pool(tmp_path, 1, 2, Stop())
    assert len(pool) == 2
    for number, planes in enumerate(pool):
        np.testing.assert_array_equal(planes, make_slice(1, number))
    before = times(tmp_path)
    assert len(before) == 1
    make_pool(tmp_path, 1, 2, Stop())
    assert times(tmp_path) == before


def test_pools_of_different_seeds_are_different_and_of_more_slices_longer(tmp_path, shards_of_two):
    pool = make_pool(tmp_path, 1, 3, Stop())
    before = times(tmp_path)
    other = make_pool(tmp_path, 2, 3, Stop())
    assert not np.array_equal(pool[0], other[0])
    longer = make_pool(tmp_path, 1, 4, Stop())
    assert times(tmp_path).items() > before.items()
    for number in range(4):
        np.testing.assert_array_equal(longer[number], make_slice(1, number))
    np.testing.assert_array_equal(pool[-1], longer[2])


def test_a_damaged_or_outdated_shard_is_made_again_and_no_other(
    tmp_path, shards_of_two, monkeypatch
):
    path = make_pool(tmp_path, 1, 4, Stop()).paths[1]
    whole, before = contents(tmp_path), times(tmp_path)
    for content in damaged(path.read_bytes(), lengths=6, flips=8):
        path.write_bytes(content)
        make_pool(tmp_path, 1, 4, Stop())
        assert contents(tmp_path) == whole
    path.unlink()
    make_pool(tmp_path, 1, 4, Stop())
    assert contents(tmp_path) == whole
    assert {other for other, when in times(tmp_path).items() if before[other] != when} == {path}
    monkeypatch.setattr(training_pool, "code_sha256", lambda modules: "of other code")
    make_pool(tmp_path, 1, 4, Stop())
    assert all(when != before[other] for other, when in times(tmp_path).items())


def test_signed_data_is_whole_or_none(tmp_path):
    path = tmp_path / "data"
    assert read_signed(path) is None
    write_signed(path, bytes(range(100)), "of this")
    assert read_signed(path, "of this") == bytes(range(100))
    assert read_signed(path, "of that") is None
    content = path.read_bytes()
    wrong = [content[:length] for length in range(len(content))]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        wrong.append(flipped)
    for content in wrong:
        path.write_bytes(content)
        assert read_signed(path, "of this") is None
    with pytest.raises(InputError, match="not a regular file"):
        read_signed(tmp_path)


def test_a_shard_that_goes_away_is_told_in_one_line(tmp_path, shards_of_two):
    pool = make_pool(tmp_path, 1, 2, Stop())
    pool.paths[0].write_bytes(pool.paths[0].read_bytes()[:200_000])
    pool[0]
    with pytest.raises(InputError, match="removed or damaged"):
        pool[1]
    pool.paths[0].unlink()
    with pytest.raises(InputError, match="removed or damaged"):
        pool[0]


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
    losses = [training.take_step([pool[0]]) for _ in range(16)]
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
    path, now = tmp_path / "state.pth", Training(SETTINGS, CPU)
    for changed in (
        {"steps": 5},
        {"seed": 4},
        {"code_sha256": 64 * "0"},
        {"torch": "1.0"},
        {"device": "cuda"},
    ):
        (name, value) = next(iter(changed.items()))
        other = Training(SETTINGS, CPU)
        other.made_of |= changed
        other.save(path)
        told = rf"another training \({name} {str(value)[:12]} there, .* now\); add --overwrite"
        with pytest.raises(InputError, match=told):
            now.load(path)


def test_a_damaged_state_is_refused(tmp_path):
    path, training = tmp_path / "state.pth", Training(SETTINGS, CPU)
    training.save(path)
    for content in damaged(path.read_bytes(), lengths=20, flips=20):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"state.pth: damaged, .* delete it"):
            training.load(path)


def test_a_full_disk_keeps_the_state_before(small_disk, shards_of_two):
    # The state doubles with the first step.
    path, training = small_disk(20 * 1024) / "state.pth", Training(SETTINGS, CPU)
    training.save(path)
    before = path.read_bytes()
    training.take_step([make_slice(0, 0)])
    with pytest.raises(InputError, match="No space left on device"):
        training.save(path)
    assert contents(path.parent) == {"state.pth": before}
    with pytest.raises(InputError, match="No space left on device"):
        [training.save_weights(path.with_name(f"{number}.pth")) for number in range(10)]
    with pytest.raises(InputError, match="No space left on device"):
        make_pool(path.parent, 1, 20, Stop())
    Training(SETTINGS, CPU).load(path)
    assert not list(path.parent.rglob(".partial*"))


# Small shards, made in one process, and often saved.
SMALL = """
import torch
from sam_lungs.utils import errors
from sam_lungs.synthetic import training
from sam_lungs.synthetic import training_data
from sam_lungs.synthetic import training_pool

torch.set_num_threads(1)  # two wait for each other where other tests run beside
training.STEPS_BETWEEN_SAVES = training_pool.SHARD_SLICES = 2
training_pool._make_slices = lambda seed, numbers: (
    training_data.make_slice(seed, number) for number in numbers
)
errors.run_script(training.main)
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_every_write_may_be_the_last(tmp_path, fault):
    (tmp_path / "small.py").write_text(SMALL)
    tried = break_everywhere(
        *(tmp_path, "out", fault, tmp_path / "small.py", "-o", "out/sam.pth"),
        *("--working_folder", "out", "--device", "cpu", "--steps", 4, "--batch_size", 1),
        *("--slices", 3, "--seed", 3),
        but="state.pth",  # what unpickles the same need not be pickled the same
    )
    assert tried >= 12 // every()


def test_ctrl_c_finishes_the_step_in_hand_and_saves_it(tmp_path):
    arguments = ("--device", "cpu", "--steps", 500, "--batch_size", 1, "--slices", 2)
    output = ("-o", tmp_path / "sam.pth", "--working_folder", tmp_path)
    process = start("-m", TRAINING, *output, *arguments)
    wait_for(tmp_path / "slices_seed_0" / "0-1.slices", process)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    training = Training(Settings(steps=500, batch_size=1, slices=2), CPU)
    training.load(tmp_path / "state.pth")
    assert training.step > 0
    path = tmp_path / "state.pth"
    told = f"stopped: {path}: step {training.step} of 500; run it again to go on"
    assert said.splitlines()[-1] == told
    assert "Traceback" not in said
    assert not (tmp_path / "sam.pth").exists()


def test_stopped_or_killed_while_slices_are_made_no_process_stays(tmp_path):
    small_shards = """
from sam_lungs.utils import errors
from sam_lungs.synthetic import training
from sam_lungs.synthetic import training_pool
training_pool.SHARD_SLICES = 10
errors.run_script(training.main)
"""

    def stop(number, shard):
        process = start(
            *("-c", small_shards, "-o", tmp_path / "sam.pth", "--working_folder", tmp_path),
            *("--device", "cpu", "--slices", 10_000),
        )
        wait_for(tmp_path / "slices_seed_0" / shard, process)
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        said = process.communicate(timeout=60)[1]  # until the last process has closed it
        return process.returncode, said

    assert stop(signal.SIGKILL, "0-9.slices")[0] == -signal.SIGKILL
    before = times(tmp_path / "slices_seed_0")
    status, said = stop(signal.SIGTERM, "10-19.slices")
    assert status == 143
    told = "stopped: the slices that are on the disk stay; run it again to go on"
    assert said.splitlines()[-1] == told
    assert "Traceback" not in said
    assert times(tmp_path / "slices_seed_0").items() > before.items()


def test_the_second_training_in_a_folder_refuses(run, tmp_path):
    descriptor = open_locked(tmp_path / ".lock", wait=False)
    done = run(TRAINING, "-o", tmp_path / "sam.pth", "--working_folder", tmp_path)
    assert_refused(done, f"{tmp_path}: another process is at work there")
    os.close(descriptor)


def test_overwrite_trains_from_the_start(tmp_path, shards_of_two, capsys):
    arguments = (CPU, tmp_path, tmp_path / "sam.pth")
    train(Settings(4, 1, 2, seed=1), *arguments)
    before = (tmp_path / "sam.pth").read_bytes()
    other = Settings(4, 1, 2, seed=2)
    with pytest.raises(InputError, match="seed 1 there, 2 now"):
        train(other, *arguments)
    assert (tmp_path / "sam.pth").read_bytes() == before
    train(other, *arguments, overwrite=True)
    after = (tmp_path / "sam.pth").read_bytes()
    assert after != before
    assert "going on" not in capsys.readouterr().out
    train(other, *arguments)
    assert "going on from step 4" in capsys.readouterr().out
    assert (tmp_path / "sam.pth").read_bytes() == after


def test_the_command_makes_a_checkpoint_that_loads(run, tmp_path):
    done = run(
        TRAINING,
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
        run(TRAINING, "-o", tmp_path / "file" / "sam.pth"),
        "cannot be written",
    )
    assert_refused(run(TRAINING, "--steps", 3, "-o", tmp_path / "sam.pth"), "--steps")
