"""Time and agreement of SAM's image encoders: ours, segment-anything's and transformers'.

    python -m benchmarks.encoder --model vit_l --precision float32 bfloat16 --rounds 3

The encoders take turns in one process, on phantom slices or on those of a volume (-i, -m). Without
--checkpoint the weights are untrained, which does not change the times. transformers is measured if
it is installed.
"""

import copy
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import weights
from benchmarks.machine import matmul_peak, median, peak_memory_gb, report, seconds_of
from sam_lungs.data.case import read_case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import DEVICES, PRECISIONS, segment
from sam_lungs.segmenters.checkpoints import CHECKPOINTS
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.synthetic.phantom import sample_slice
from sam_lungs.utils.cli import option, parse_options, run_script


@dataclass
class Options:
    """Command-line options."""

    model: str = option("size of SAM", "vit_l", group="model", choices=list(CHECKPOINTS))
    checkpoint: Path | None = option("file of its weights", None, group="model")
    device: str = option("where to compute", "auto", group="model", choices=DEVICES)
    precision: Sequence[str] = option(
        "of our encoder",
        ("float32",),
        group="model",
        choices=PRECISIONS,
        shown_default="float32",
    )
    batch_size: int | None = option(
        "of our encoder",
        None,
        group="model",
        shown_default="as many slices as the device allows",
    )
    image_file_path: Path | None = option(
        "volume to encode", None, group="data", short="-i", shown_default="phantoms"
    )
    masks_file_path: Path | None = option(
        "lung masks of the volume", None, group="data", short="-m"
    )
    rounds: int = option("measurements of each encoder", 3, group="output")
    json: Path | None = option("also write the table to this file", None, group="output")


def main() -> None:
    options = parse_options(
        Options,
        "Measure time and agreement of SAM's image encoders.",
        "python -m benchmarks.encoder --model vit_l --precision float32 bfloat16 --rounds 3",
        prog="python -m benchmarks.encoder",
    )
    device = choose_devices(options.device)[0]
    sam = weights.load(options.model, options.checkpoint)
    ours = {
        precision: SamSegmenter(copy.deepcopy(sam), device, precision)
        for precision in options.precision
    }
    batch_size = options.batch_size or next(iter(ours.values())).batch_size()
    slices = list(read_slices(options.image_file_path, options.masks_file_path, batch_size))
    theirs = SamPredictor(sam.to(device))
    pictures = [theirs.transform.apply_image(image_rgb) for image_rgb, _ in slices]
    pictures = [torch.as_tensor(picture).permute(2, 0, 1) for picture in pictures]

    @torch.inference_mode()
    def encode_as_sam_predictor() -> torch.Tensor:
        one_by_one = [sam.preprocess(picture.to(device)[None]) for picture in pictures]
        return torch.cat([sam.image_encoder(image) for image in one_by_one])

    encoders = {"SamPredictor float32": encode_as_sam_predictor}
    if options.model != "compact" and (transformed := build_transformers(options.model, sam)):
        transformed = transformed.to(device)

        @torch.inference_mode()
        def encode_as_transformers() -> torch.Tensor:
            one_by_one = [sam.preprocess(picture.to(device)[None]) for picture in pictures]
            return torch.cat([transformed(image)[0] for image in one_by_one])

        encoders["transformers float32"] = encode_as_transformers
    for precision, segmenter in ours.items():
        encoders[f"ours {precision}"] = lambda segmenter=segmenter: segmenter.encode(pictures)[0]

    with FlopCounterMode(display=False) as counter:
        reference = encode_as_sam_predictor()
    # The count is the same for all encoders, although they compute relative positions differently.
    operations = counter.get_total_flops() / len(slices)
    seconds = {name: [] for name in encoders}
    embeddings = {"SamPredictor float32": reference}  # this was its warm-up
    embeddings |= {name: encode() for name, encode in encoders.items() if name not in embeddings}
    for _ in range(options.rounds):
        for name, encode in encoders.items():
            seconds[name].append(seconds_of(encode, device) / len(slices))

    peaks = {name: matmul_peak(device, getattr(torch, name)) for name in {"float32", *ours}}
    slowest = median(seconds["SamPredictor float32"])
    expected = predict(theirs, slices)
    rows = []
    for name, embedding in embeddings.items():
        precision = name.split()[1]
        each = median(seconds[name])
        row = {
            "encoder": name,
            "ms per slice": each * 1e3,
            "ratio": slowest / each,
            "TFLOP/s": operations / each / 1e12,
            "of matmul peak": operations / each / peaks[precision],
            "embeddings differ by": ((embedding - reference).norm() / reference.norm()).item(),
        }
        if name.startswith("ours"):
            predictions = [segment(ours[precision], *each) for each in slices]
            differing = [
                np.count_nonzero(prediction.mask != mask)
                for prediction, mask in zip(predictions, expected, strict=True)
            ]
            row["pixels in 100,000 differ"] = (
                1e5 * sum(differing) / sum(mask.size for mask in expected)
            )
        rows.append(row)
    report(rows, device, options.json)
    peak_gb = peak_memory_gb(resource.getrusage(resource.RUSAGE_SELF))
    print(f"{len(slices)} slices, our batch size {batch_size}; peak memory {peak_gb:.2f} GB")


def read_slices(
    image_path: Path | None, masks_path: Path | None, count: int
) -> Iterator[tuple[np.ndarray, Prompts]]:
    """Yield slices with lung, (rows, columns, 3) uint8, and the paper's prompts."""
    if image_path is None:
        for number in range(count):
            hu, masks = sample_slice(np.random.default_rng([1, number]), 512, 512, "hounsfield")
            yield slice_to_rgb(hu, LUNG_WINDOW), make_prompts(masks, PromptProtocol())
        return
    case = read_case(CaseFiles(image_path, (masks_path,)))
    for index in case.lung_slices[:count]:
        rgb = slice_to_rgb(case.image.array[:, :, index], case.window)
        yield rgb, make_prompts(case.masks.array[:, :, index], PromptProtocol())


def predict(
    predictor: SamPredictor, slices: Sequence[tuple[np.ndarray, Prompts]]
) -> list[np.ndarray]:
    """Return the masks, (rows, columns) bool, of segment-anything's predictor."""
    masks = []
    for image_rgb, prompts in slices:
        predictor.set_image(image_rgb)
        mask, _, _ = predictor.predict(
            point_coords=prompts.points_xy,
            point_labels=prompts.labels,
            box=prompts.box_xyxy,
            multimask_output=False,
        )
        masks.append(mask[0])
    return masks


def build_transformers(model: str, sam: Sam) -> torch.nn.Module | None:
    """Return the image encoder of transformers' SAM with the same weights, if it is installed."""
    try:
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionModel
    except ImportError:
        return None
    width, depth, heads, global_blocks = {
        "vit_b": (768, 12, 12, [2, 5, 8, 11]),
        "vit_l": (1024, 24, 16, [5, 11, 17, 23]),
        "vit_h": (1280, 32, 16, [7, 15, 23, 31]),
    }[model]
    config = SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        global_attn_indexes=global_blocks,
        mlp_dim=4 * width,
        attn_implementation="sdpa",
    )
    renamed = {}
    for name, weight in sam.image_encoder.state_dict().items():
        for old, new in (
            ("patch_embed.proj", "patch_embed.projection"),
            ("blocks.", "layers."),
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("neck.0", "neck.conv1"),
            ("neck.1", "neck.layer_norm1"),
            ("neck.2", "neck.conv2"),
            ("neck.3", "neck.layer_norm2"),
        ):
            name = name.replace(old, new)
        renamed[f"vision_encoder.{name}"] = weight
    with torch.device("meta"):
        vision = SamVisionModel(config)
    vision.load_state_dict(renamed, assign=True)
    return vision.eval().requires_grad_(False)


if __name__ == "__main__":
    run_script(main)
