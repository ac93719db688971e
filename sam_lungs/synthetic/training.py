"""Train the compact SAM on phantoms.

    python -m sam_lungs.synthetic.training --output_file_path checkpoints/sam_compact.pth

The loss is SAM's: focal and Dice loss of the mask, 20 to 1, and the squared error of the predicted
Jaccard index (Kirillov et al. 2023, arXiv:2304.02643, appendix A).
"""

import argparse
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch.nn import functional as F

from sam_lungs.segmenters.sam import choose_devices
from sam_lungs.segmenters.sam_compact import build_compact
from sam_lungs.study.options import DEVICES
from sam_lungs.synthetic.training_data import PADDING, Task, augment, draw_tasks
from sam_lungs.synthetic.training_pool import CODE as POOL_CODE
from sam_lungs.synthetic.training_pool import make_pool
from sam_lungs.utils.errors import InputError, run_script
from sam_lungs.utils.files import alone_in, check_writable, read_signed, replacing, write_signed
from sam_lungs.utils.progress import Progress
from sam_lungs.utils.provenance import code_sha256, difference
from sam_lungs.utils.signals import Stop, Stopped

# The modules that decide the weights.
CODE = (*POOL_CODE, "prompts/rules", "segmenters/sam_compact", "synthetic/training")
STEPS_BETWEEN_SAVES = 50
LEARNING_RATE = 1e-3
WARMUP_STEPS = 150
WEIGHT_DECAY = 0.05
AVERAGE_DECAY = 0.995
FOCAL_GAMMA = 2
FOCAL_WEIGHT = 20


@dataclass(frozen=True)
class Settings:
    """What decides which weights come out: steps, slices a step, slices in all, and the seed."""

    steps: int = 3600
    batch_size: int = 6
    slices: int = 12000
    seed: int = 0


class Training:
    """Weights, their running average, and the optimizer: all that a step changes."""

    _parts = ("sam", "average", "optimizer", "schedule")

    def __init__(self, settings: Settings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = device
        self.sam = build_compact().to(device).train()
        self.average = torch.optim.swa_utils.AveragedModel(
            self.sam, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY)
        )
        self.optimizer = torch.optim.AdamW(self.sam.parameters(), weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            LEARNING_RATE,
            total_steps=settings.steps,
            pct_start=min(WARMUP_STEPS / settings.steps, 0.5),
            cycle_momentum=False,
        )
        self.step = 0
        self.made_of = asdict(settings) | {
            "code_sha256": code_sha256(CODE),
            "torch": str(torch.__version__),
            "device": device.type,
        }

    def take_step(self, pool: Sequence[np.ndarray]) -> float:
        """Learn from a batch of random slices, each as `make_slice` gives it; return the loss."""
        # Seeded anew, so that a training that was continued sees the same slices.
        rng = np.random.default_rng([self.settings.seed, self.step])
        numbers = rng.integers(len(pool), size=self.settings.batch_size)
        slices = [augment(rng, *pool[number]) for number in numbers]
        loss = slices_loss(self.sam, slices, [draw_tasks(rng, *planes) for planes in slices])
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.sam)
        self.step += 1
        return loss.item()

    def save(self, path: Path) -> None:
        """Write everything that `load` needs to go on from here.

        Raises `InputError` when it cannot be written; what was at `path` before is then untouched.
        """
        state = {name: getattr(self, name).state_dict() for name in self._parts}
        write_signed(path, _saved(state | {"made_of": self.made_of, "step": self.step}))

    def load(self, path: Path) -> None:
        """Go on from where `save` was called.

        Raises `InputError` when that was another training, and when the file is damaged.
        """
        data = read_signed(path)
        if data is None:
            raise InputError(
                f"{path}: damaged, or of an earlier version; delete it to train from the start"
            )
        state = torch.load(io.BytesIO(data), map_location=self.device, weights_only=True)
        if state["made_of"] != self.made_of:
            raise InputError(
                f"{path}: of another training"
                f" ({difference(state['made_of'], self.made_of)}); add --overwrite to train from"
                " the start, or choose another --working_folder"
            )
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]

    def save_weights(self, path: Path) -> None:
        """Write the averaged weights as a checkpoint, in half precision."""
        weights = {
            name: weight.half().cpu() for name, weight in self.average.module.state_dict().items()
        }
        with replacing(path) as temporary:
            temporary.write_bytes(_saved(weights))


def _saved(content: dict) -> bytes:
    """Return the bytes of a checkpoint.

    Given a path, `torch.save` would name the archive after it, and on a full disk raise what is no
    `OSError`.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def slices_loss(
    sam: Sam, slices: list[tuple[np.ndarray, np.ndarray]], tasks: list[list[Task]]
) -> torch.Tensor:
    """Return the mean loss over slices, as `training_data.fit` returns them, and their tasks."""
    device = sam.device
    grey = torch.as_tensor(np.stack([grey for grey, _ in slices]), device=device)
    images = grey[:, None].expand(-1, 3, -1, -1).float()  # (slices, 3, IMAGE_SIZE, IMAGE_SIZE)
    inside = torch.as_tensor(np.stack([labels < PADDING for _, labels in slices]), device=device)
    # SAM pads with zeros after it has normalized.
    embeddings = sam.image_encoder(sam.preprocess(images) * inside[:, None])
    losses = []
    for boxed in (False, True):
        chosen = [
            (number, task)
            for number, of_slice in enumerate(tasks)
            for task in of_slice
            if (task.prompts.box_rc is not None) == boxed
        ]
        if chosen:
            numbers, group = zip(*chosen, strict=True)
            numbers = torch.tensor(numbers, device=device)
            # Unlike that of indexing, the gradient of this does not depend on the threads' order.
            of_tasks = embeddings.index_select(0, numbers)
            losses.append(_group_loss(sam, of_tasks, inside[numbers], group))
    return torch.cat(losses).mean()


def _group_loss(
    sam: Sam, embeddings: torch.Tensor, within: torch.Tensor, tasks: Sequence[Task]
) -> torch.Tensor:
    """Return the loss of each task (tasks,), each on its own slice; all or none have a box."""
    device = embeddings.device
    most = max(len(task.prompts.labels) for task in tasks)
    points_xy = np.zeros((len(tasks), most, 2), dtype=np.float32)
    labels = np.full((len(tasks), most), -1)  # -1 is SAM's "not a point"
    for row, task in enumerate(tasks):
        count = len(task.prompts.labels)
        points_xy[row, :count] = task.prompts.points_rc[:, ::-1]
        labels[row, :count] = task.prompts.labels
    boxes_xyxy = None
    if tasks[0].prompts.box_rc is not None:
        boxes = np.stack([task.prompts.box_rc[[1, 0, 3, 2]] for task in tasks])
        boxes_xyxy = torch.as_tensor(boxes, dtype=torch.float32, device=device)
    points = torch.as_tensor(points_xy, device=device), torch.as_tensor(labels, device=device)
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes_xyxy, masks=None)
    # The decoder takes one image, and adds the dense embeddings of its prompts to it.
    logits, scores = sam.mask_decoder(
        image_embeddings=torch.zeros_like(embeddings[:1]),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=embeddings + dense,
        multimask_output=False,
    )
    size = within.shape[-2:]
    logits = F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[:, 0]
    target = torch.as_tensor(np.stack([task.mask for task in tasks]), device=device).float()
    return mask_loss(logits, target, scores[:, 0].float(), within)


def mask_loss(
    logits: torch.Tensor, target: torch.Tensor, scores: torch.Tensor, within: torch.Tensor
) -> torch.Tensor:
    """Return SAM's loss of each mask, (masks,).

    logits, target: (masks, rows, columns), target 0 or 1; scores: (masks,), the Jaccard index
    that SAM expects; within: (rows, columns) bool, the pixels that count.
    """
    pixels = (1, 2)
    logits, target = logits.masked_fill(~within, -20), target * within
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    miss = (probability - target).abs()
    focal = (miss**FOCAL_GAMMA * entropy).sum(pixels) / within.sum()
    overlap = (probability * target).sum(pixels)
    dice = 1 - (2 * overlap + 1) / (probability.sum(pixels) + target.sum(pixels) + 1)
    predicted = logits.detach() > 0
    union = (predicted | (target > 0)).sum(pixels).clamp(min=1)
    jaccard = (predicted & (target > 0)).sum(pixels) / union
    return FOCAL_WEIGHT * focal + dice + (scores - jaccard) ** 2


def train(
    settings: Settings,
    device: torch.device,
    working_folder: Path,
    output_file_path: Path,
    overwrite: bool = False,
) -> None:
    """Train to the end, going on from where an earlier call stopped, and write the checkpoint.

    overwrite: from the start, whatever training was in the working folder.

    Raises `InputError` when that was another one, when its state is damaged, when another process
    trains there, and when something cannot be written; `Stopped` on a signal, with the step in hand
    finished and saved.
    """
    training = Training(settings, device)
    state_path = working_folder / "state.pth"
    with alone_in(working_folder), Stop() as stop:
        if overwrite:
            state_path.unlink(missing_ok=True)
        if state_path.exists():
            training.load(state_path)
            print(f"going on from step {training.step}")
        pool = make_pool(working_folder, settings.seed, settings.slices, stop)
        loss = 0.0
        with Progress("training", settings.steps, training.step, "step") as progress:
            while training.step < settings.steps:
                latest = training.take_step(pool)
                loss = latest if loss == 0 else 0.98 * loss + 0.02 * latest
                progress.update(remark=f"loss {loss:.4f}")
                last = training.step == settings.steps
                if stop or last or training.step % STEPS_BETWEEN_SAVES == 0:
                    training.save(state_path)
                if stop:
                    again = "run it again" + (" without --overwrite" if overwrite else "")
                    raise Stopped(
                        stop.number,
                        f"{state_path}: step {training.step} of {settings.steps}; {again} to go on",
                    )
        training.save_weights(output_file_path)


def main() -> None:
    """Train as the command line says, going on from where an earlier call stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m sam_lungs.synthetic.training",
        description="Train the compact SAM on phantoms; a training that was stopped goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-o", "--output_file_path", type=Path, default=Path("checkpoints/sam_compact.pth")
    )
    parser.add_argument(
        "--working_folder",
        type=Path,
        default=Path("working_data/compact"),
        help="where slices and the state of the training are kept",
    )
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--batch_size", type=int, default=Settings.batch_size, help="slices a step")
    parser.add_argument(
        "--slices", type=int, default=Settings.slices, help="in all, each of another patient"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="train from the start, whatever training the working folder holds",
    )
    args = parser.parse_args()

    check_writable(args.output_file_path.parent)
    check_writable(args.working_folder)
    device = choose_devices(args.device)[0]
    settings = Settings(args.steps, args.batch_size, args.slices, args.seed)
    # The learning rate needs four steps to rise and fall.
    if args.steps < 4 or min(args.batch_size, args.slices) < 1:
        raise InputError("--steps must be at least 4, --batch_size and --slices at least 1")
    started = time.monotonic()
    train(settings, device, args.working_folder, args.output_file_path, args.overwrite)
    print(f"{args.output_file_path}: trained for {(time.monotonic() - started) / 60:.0f} min")


if __name__ == "__main__":
    run_script(main)
