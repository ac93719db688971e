r"""SAM's image encoder and masks: ours beside segment-anything's, and transformers' where it is.

python -m benchmarks.encoder --model vit_l --precision float32 bfloat16 --rounds 3

Takes turns in one process, over phantom slices or those of a volume (-i, -m); without --checkpoint
the weights are untrained, which takes as long. For the third column `pip install transformers`.
"""

import argparse
import copy
import resource
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import weights
from benchmarks.machine import matmul_peak, median, peak_memory_gb, report, seconds_of
from sam_lungs.data.volumes import read_pair
from sam_lungs.data.windowing import LUNG_WINDOW, choose_window, slice_to_rgb
from sam_lungs.prompts.rules import PromptProtocol, make_prompts
from sam_lungs.segmenters.checkpoints import CHECKPOINTS
from sam_lungs.segmenters.sam import PRECISIONS, SamSegmenter, choose_devices
from sam_lungs.synthetic.phantom import sample_slice
from sam_lungs.utils.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description="SAM's image encoder, ours beside segment-anything's.", allow_abbrev=False
    )
    parser.add_argument("--model", choices=CHECKPOINTS, default="vit_l")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=["float32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch_size", type=int, help="of ours; as many as the device likes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-i", "--image_file_path", type=Path)
    parser.add_argument("-m", "--masks_file_path", type=Path)
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()

    device = choose_devices(args.device)[0]
    sam = weights.load(args.model, args.checkpoint)
    ours = {
        precision: SamSegmenter(copy.deepcopy(sam), device, precision)
        for precision in args.precision
    }
    batch_size = args.batch_size or next(iter(ours.values())).batch_size()
    slices = list(read_slices(args.image_file_path, args.masks_file_path, batch_size))
    theirs = SamPredictor(sam.to(device))
    pictures = [theirs.transform.apply_image(image_rgb) for image_rgb, _ in slices]
    pictures = [torch.as_tensor(picture).permute(2, 0, 1) for picture in pictures]

    @torch.inference_mode()
    def encode_as_sam_predictor() -> torch.Tensor:
        one_by_one = [sam.preprocess(picture.to(device)[None]) for picture in pictures]
        return torch.cat([sam.image_encoder(image) for image in one_by_one])

    encoders = {"SamPredictor float32": encode_as_sam_predictor}
    if args.model != "compact" and (transformed := build_transformers(args.model, sam)):
        transformed = transformed.to(device)

        @torch.inference_mode()
        def encode_as_transformers() -> torch.Tensor:
            one_by_one = [sam.preprocess(picture.to(device)[None]) for picture in pictures]
            return torch.cat([transformed(image)[0] for image in one_by_one])

        encoders["transformers float32"] = encode_as_transformers
    for precision, segmenter in ours.items():
        encoders[f"ours {precision}"] = lambda segmenter=segmenter: segmenter.encode(pictures)

    with FlopCounterMode(display=False) as counter:
        reference = encode_as_sam_predictor()
    # The relative positions' share is its own choice, and small: all are held against the same.
    operations = counter.get_total_flops() / len(slices)
    seconds = {name: [] for name in encoders}
    embeddings = {"SamPredictor float32": reference}  # which was its warming up
    embeddings |= {name: encode() for name, encode in encoders.items() if name not in embeddings}
    for _ in range(args.rounds):
        for name, encode in encoders.items():
            seconds[name].append(seconds_of(encode, device) / len(slices))

    peaks = {name: matmul_peak(device, PRECISIONS[name]) for name in {"float32", *ours}}
    slowest = median(seconds["SamPredictor float32"])
    expected = predict(theirs, slices)
    rows = []
    for name, embedding in embeddings.items():
        precision = name.split()[1]
        each = median(seconds[name])
        row = {
            "encoder": name,
            "ms a slice": each * 1e3,
            "ratio": slowest / each,
            "TFLOP/s": operations / each / 1e12,
            "of matmul peak": operations / each / peaks[precision],
            "embeddings differ by": ((embedding - reference).norm() / reference.norm()).item(),
        }
        if name.startswith("ours"):
            answers = [ours[precision].segment(*each) for each in slices]
            differing = [
                np.count_nonzero(answer.mask != mask)
                for answer, mask in zip(answers, expected, strict=True)
            ]
            row["pixels in 100,000 differ"] = (
                1e5 * sum(differing) / sum(mask.size for mask in expected)
            )
        rows.append(row)
    report(rows, device, args.json)
    peak_gb = peak_memory_gb(resource.getrusage(resource.RUSAGE_SELF))
    print(f"{len(slices)} slices, batch size of ours {batch_size}; peak {peak_gb:.2f} GB")


def read_slices(image_path: Path | None, masks_path: Path | None, count: int):
    """Yield pictures, (rows, columns, 3) uint8, and the paper's prompts, of slices with lung."""
    if image_path is None:
        for number in range(count):
            hu, masks = sample_slice(np.random.default_rng([1, number]), 512, 512, "hounsfield")
            yield slice_to_rgb(hu, LUNG_WINDOW), make_prompts(masks, PromptProtocol())
        return
    image, masks, _ = read_pair(image_path, masks_path)
    window = choose_window("auto", image)
    for index in np.flatnonzero(masks.array.any(axis=(0, 1)))[:count]:
        rgb = slice_to_rgb(image.array[:, :, index], window)
        yield rgb, make_prompts(masks.array[:, :, index], PromptProtocol())


def predict(predictor: SamPredictor, slices) -> list[np.ndarray]:
    """Return the masks, (rows, columns) bool, of segment-anything's own way."""
    masks = []
    for image_rgb, prompts in slices:
        predictor.set_image(image_rgb)
        answer, _, _ = predictor.predict(
            point_coords=prompts.points_rc[:, ::-1],
            point_labels=prompts.labels,
            box=prompts.box_rc[[1, 0, 3, 2]],
            multimask_output=False,
        )
        masks.append(answer[0])
    return masks


def build_transformers(model: str, sam) -> torch.nn.Module | None:
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
