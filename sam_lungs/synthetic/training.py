"""Train the compact SAM on phantoms.

    python -m sam_lungs.synthetic.training --output_file_path checkpoints/sam_compact.pth

To resume after a kill, run the same command again. The state is saved every STEPS_BETWEEN_SAVES
steps, so a kill costs at most that many. On one machine the same options give the same weights,
interrupted or not.

The loss is SAM's: focal and Dice loss of the mask, 20 to 1, and the squared error of the predicted
IoU (Kirillov et al. 2023, arXiv:2304.02643, appendix A).
"""

import io
import multiprocessing.connection
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch.nn import functional as F
from torch.utils.data import DataLoader

from sam_lungs.segmenters.base import DEVICES
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.segmenters.sam import decode_prompts
from sam_lungs.segmenters.sam_compact import build_compact
from sam_lungs.synthetic.phantom import CODE as PHANTOM_CODE
from sam_lungs.synthetic.training_data import PADDING, Batch, Task, TrainingBatches
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, check_writable, locked_folder, remove
from sam_lungs.utils.progress import Progress
from sam_lungs.utils.provenance import code_sha256, difference

# The modules that decide the weights.
CODE = (
    *PHANTOM_CODE,
    "data/windowing.py",
    "prompts/protocols.py",
    "prompts/rules.py",
    "segmenters/sam.py",
    "segmenters/sam_compact.py",
    "synthetic/training*.py",
)
WORKERS = min(os.cpu_count() or 1, 8)  # processes that make batches
STEPS_BETWEEN_SAVES = 50
LEARNING_RATE = 1e-3
WARMUP_STEPS = 150
WEIGHT_DECAY = 0.05
AVERAGE_DECAY = 0.995
FOCAL_GAMMA = 2
FOCAL_WEIGHT = 20


@dataclass(frozen=True)
class TrainingOptions:
    """Command-line options; those with `decides` decide the weights."""

    output_file_path: Path = option(
        "checkpoint to write",
        Path("checkpoints/sam_compact.pth"),
        group="files",
        short="-o",
    )
    working_folder: Path = option(
        "folder of the training's state", Path("working_data/compact"), group="files"
    )
    overwrite: bool = option(
        "train from the first step, and discard the state in the working folder",
        False,
        group="files",
    )
    steps: int = option("number of steps", 3600, group="training", decides=True)
    batch_size: int = option("slices per step", 6, group="training", decides=True)
    slices: int = option(
        "number of different slices, each of another patient",
        12000,
        group="training",
        decides=True,
    )
    seed: int = option(
        "seed of slices, prompts and first weights", 0, group="training", decides=True
    )
    device: str = option("where to compute", "auto", group="training", choices=DEVICES)


class Training:
    """The weights, their running average, and the optimizer: all that a step changes."""

    _parts = ("sam", "average", "optimizer", "schedule")

    def __init__(self, options: TrainingOptions, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.device = device
        self.sam = build_compact().to(device).train()
        self.average = torch.optim.swa_utils.AveragedModel(
            self.sam, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY)
        )
        self.optimizer = torch.optim.AdamW(self.sam.parameters(), weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            LEARNING_RATE,
            total_steps=options.steps,
            pct_start=min(WARMUP_STEPS / options.steps, 0.5),
            cycle_momentum=False,
        )
        self.step = 0
        decisive = [each.name for each in fields(options) if each.metadata["decides"]]
        self.made_of = {name: getattr(options, name) for name in decisive} | {
            "code_sha256": code_sha256(CODE),
            "torch": str(torch.__version__),
            "device": device.type,
        }

    def take_step(self, batch: Batch) -> float:
        """Train on a batch and return its loss."""
        loss = batch_loss(self.sam, batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.sam)
        self.step += 1
        return loss.item()

    def save(self, path: Path) -> None:
        """Write the state that `load` reads.

        Raises `InputError` when it cannot be written; the file at `path` is then unchanged.
        """
        state = {name: getattr(self, name).state_dict() for name in self._parts}
        _write(path, state | {"made_of": self.made_of, "step": self.step})

    def load(self, path: Path) -> None:
        """Read a state that `save` wrote.

        Raises `InputError` when the file is damaged, or belongs to a training with other options,
        code, PyTorch or kind of device.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                intact = archive.testzip() is None  # torch.load does not check the CRCs
            state = torch.load(path, map_location=self.device, weights_only=True)
            made_of, step = dict(state["made_of"]), state["step"]
        except Exception as error:  # damaged files raise errors of many types
            raise _damaged(path) from error
        if not intact:
            raise _damaged(path)
        if made_of != self.made_of:
            raise InputError(
                f"{path}: of another training ({difference(made_of, self.made_of)});"
                " add --overwrite to train from the first step, or choose another --working_folder"
            )
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])
        self.step = step

    def save_weights(self, path: Path) -> None:
        """Write the averaged weights as a checkpoint, in half precision."""
        weights = self.average.module.state_dict()
        _write(path, {name: weight.half().cpu() for name, weight in weights.items()})


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: damaged; add --overwrite to train from the first step")


def _write(path: Path, content: dict) -> None:
    # Not torch.save(content, path): it writes the temporary name into the file, and a full disk is
    # no OSError there.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def batch_loss(sam: Sam, batch: Batch) -> torch.Tensor:
    """Return the mean loss over all tasks of a batch."""
    device = sam.device
    grey = torch.as_tensor(batch.grey, device=device)
    images = grey[:, None].expand(-1, 3, -1, -1).float()  # (slices, 3, IMAGE_SIZE, IMAGE_SIZE)
    inside = torch.as_tensor(batch.labels < PADDING, device=device)
    # SAM pads with zeros after it has normalized.
    embeddings = sam.image_encoder(sam.preprocess(images) * inside[:, None])
    losses = []
    for boxed in (False, True):
        chosen = [
            (number, task)
            for number, tasks in enumerate(batch.tasks)
            for task in tasks
            if (task.prompts.box_rc is not None) == boxed
        ]
        if chosen:
            numbers, group = zip(*chosen, strict=True)
            numbers = torch.tensor(numbers, device=device)
            # Unlike that of indexing, the gradient of this does not depend on the threads' order.
            task_embeddings = embeddings.index_select(0, numbers)
            losses.append(_group_loss(sam, task_embeddings, inside[numbers], group))
    return torch.cat(losses).mean()


def _group_loss(
    sam: Sam, embeddings: torch.Tensor, inside: torch.Tensor, tasks: Sequence[Task]
) -> torch.Tensor:
    """Return the loss of each task, (tasks,); all tasks have a box, or none has one.

    embeddings: of each task's slice. inside: (tasks, rows, columns) bool, False in the padding.
    """
    device = embeddings.device
    most = max(len(task.prompts.labels) for task in tasks)
    points_xy = np.zeros((len(tasks), most, 2), dtype=np.float32)
    labels = np.full((len(tasks), most), -1)  # -1 is SAM's label for padding
    for row, task in enumerate(tasks):
        count = len(task.prompts.labels)
        points_xy[row, :count] = task.prompts.points_xy
        labels[row, :count] = task.prompts.labels
    boxes_xyxy = None
    if tasks[0].prompts.box_rc is not None:
        boxes = np.stack([task.prompts.box_xyxy for task in tasks])
        boxes_xyxy = torch.as_tensor(boxes, dtype=torch.float32, device=device)
    points_xy, labels = (torch.as_tensor(array, device=device) for array in (points_xy, labels))
    logits, predicted_ious = decode_prompts(sam, embeddings, points_xy, labels, boxes_xyxy)
    logits = F.interpolate(
        logits[:, None].float(), inside.shape[-2:], mode="bilinear", align_corners=False
    )[:, 0]
    target = torch.as_tensor(np.stack([task.mask for task in tasks]), device=device).float()
    return mask_loss(logits, target, predicted_ious.float(), inside)


def mask_loss(
    logits: torch.Tensor, target: torch.Tensor, predicted_ious: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """Return SAM's loss of each mask, (masks,).

    logits: (masks, rows, columns). target: the same shape, 0 or 1. predicted_ious: (masks,).
    inside: (masks, rows, columns) or (rows, columns) bool; other pixels are ignored.
    """
    pixels = (1, 2)
    logits, target = logits.masked_fill(~inside, -20), target * inside
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    miss = (probability - target).abs()
    focal = (miss**FOCAL_GAMMA * entropy).sum(pixels) / inside.sum()
    intersection = (probability * target).sum(pixels)
    dice = 1 - (2 * intersection + 1) / (probability.sum(pixels) + target.sum(pixels) + 1)
    predicted = logits.detach() > 0
    union = (predicted | (target > 0)).sum(pixels).clamp(min=1)
    jaccard = (predicted & (target > 0)).sum(pixels) / union
    return FOCAL_WEIGHT * focal + dice + (predicted_ious - jaccard) ** 2


def train(options: TrainingOptions, device: torch.device) -> None:
    """Train to the last step, resuming from the saved state if there is one; write the checkpoint.

    Raises `InputError` when the saved state is damaged or of another training, when another process
    trains in the working folder, when a worker is killed, and when a file cannot be written.
    """
    training = Training(options, device)
    state_path = options.working_folder / "state.pth"
    with locked_folder(options.working_folder):
        if options.overwrite:
            remove(state_path)
        if state_path.exists():
            training.load(state_path)
            print(f"resuming from step {training.step}")
        loss = 0.0
        try:
            with Progress("training", options.steps, training.step, "step") as progress:
                for batch in _batches(options, training.step):
                    latest = training.take_step(batch)
                    loss = latest if loss == 0 else 0.98 * loss + 0.02 * latest
                    progress.update(remark=f"loss {loss:.4f}")
                    last = training.step == options.steps
                    if last or training.step % STEPS_BETWEEN_SAVES == 0:
                        training.save(state_path)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                "a process that makes slices was killed, perhaps because memory ran out; run the"
                " same command again, without --overwrite, to resume"
            ) from error
        training.save_weights(options.output_file_path)


def _batches(options: TrainingOptions, first_step: int) -> Iterable[Batch]:
    """Return the batches from a step on, made by WORKERS processes, or by this one for 0."""
    return DataLoader(
        TrainingBatches(options.seed, options.slices, options.batch_size),
        batch_size=None,  # an item is a batch already
        sampler=range(first_step, options.steps),
        num_workers=WORKERS,
        # Not forked: a fork of a process in which torch has threads can hang.
        multiprocessing_context="spawn" if WORKERS else None,
        worker_init_fn=_end_with_parent,
    )


def _end_with_parent(_worker: int) -> None:
    """Make a worker ignore Ctrl-C and end with its parent; PyTorch's may hang when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Train as the command line says."""
    options = parse_options(
        TrainingOptions,
        "Train the compact SAM on phantoms. To resume, run the same command again.",
        "python -m sam_lungs.synthetic.training -o checkpoints/sam_compact.pth",
        prog="python -m sam_lungs.synthetic.training",
    )
    # The learning rate needs four steps to rise and fall.
    if options.steps < 4 or min(options.batch_size, options.slices) < 1 or options.seed < 0:
        raise InputError(
            "--steps must be at least 4, --batch_size and --slices at least 1, --seed at least 0"
        )
    check_writable(options.output_file_path.parent)
    check_writable(options.working_folder)
    device = choose_devices(options.device)[0]
    started = time.monotonic()
    train(options, device)
    minutes = (time.monotonic() - started) / 60
    print(f"{options.output_file_path}: trained for {minutes:.0f} min")


if __name__ == "__main__":
    run_script(main, resume="run the same command again, without --overwrite")
