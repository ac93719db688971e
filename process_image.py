#!/usr/bin/env python
r"""Segment the lungs in CT volumes with SAM, prompted from their lung masks; measure the result.

python process_image.py \
    --image_file_path working_data/image_coronacases_001.npy \
    --masks_file_path working_data/masks_coronacases_001.npy \
    --slice 122 --debug

Without --slice it does whole volumes, and writes the results of each into its folder. Stopped or
killed, the same command goes on where it was.
"""

import argparse
import re
from pathlib import Path

from sam_lungs.prompts.rules import NEGATIVES, POINTS, PROTOCOLS, PromptProtocol
from sam_lungs.segmenters.checkpoints import CHECKPOINTS
from sam_lungs.study.options import (
    DEVICES,
    EMBEDDINGS_PRECISIONS,
    EMPTY_SLICES,
    METRICS,
    PRECISIONS,
    Options,
)
from sam_lungs.utils.errors import InputError, run_script


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Segment the lungs in CT volumes with SAM, prompted from their lung masks,"
        " and measure the masks.",
        allow_abbrev=False,
    )
    # So that argparse takes `--window -650,1500` for an option with its value, not for two options.
    parser._negative_number_matcher = re.compile(r"-\.?\d.*$")
    parser.add_argument(
        "-i",
        "--image_file_path",
        type=Path,
        nargs="+",
        required=True,
        help="one or more .npy, .npz, .nii or .nii.gz",
    )
    parser.add_argument(
        "-m",
        "--masks_file_path",
        type=Path,
        nargs="+",
        required=True,
        help="the lung masks of each image, in the same order",
    )
    parser.add_argument("-s", "--slice", type=int, help="process this slice only")
    parser.add_argument(
        "-d", "--debug", action="store_true", help="draw each slice and write down its prompts"
    )
    parser.add_argument(
        "-n",
        "--dry_run",
        action="store_true",
        help="check all the input, tell every fault in one table, and how long it would take",
    )
    parser.add_argument(
        "--output_folder", type=Path, help="results folder, in place of results/ beside the image"
    )
    parser.add_argument(
        "--model", choices=CHECKPOINTS, default="vit_l", help="SAM's size [%(default)s]"
    )
    parser.add_argument("--checkpoint", type=Path, help="weights, in place of the official ones")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where SAM runs [%(default)s]"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of SAM's image encoder [%(default)s]",
    )
    parser.add_argument(
        "--window",
        default="auto",
        help="auto, lung, none, or LEVEL,WIDTH in Hounsfield units [%(default)s]",
    )
    protocol = PromptProtocol()
    parser.add_argument(
        "--points",
        choices=POINTS,
        default=protocol.points,
        help="where positive points go [%(default)s]",
    )
    parser.add_argument(
        "--negative",
        choices=NEGATIVES,
        default=protocol.negative,
        help="the negative point [%(default)s]",
    )
    parser.add_argument(
        "--negative_offset",
        type=int,
        metavar="ROWS",
        default=protocol.negative_offset_rows,
        help="rows to move the negative point down, at most to the border [%(default)s]",
    )
    parser.add_argument(
        "--box",
        action="store_true",
        default=protocol.box,
        help="give SAM the box, the default",
    )
    parser.add_argument("--no_box", action="store_false", dest="box", help="do not")
    parser.add_argument(
        "--prompts",
        type=_protocol_names,
        metavar="NAME,NAME...",
        help=f"several prompt protocols in one pass, in place of the options above:"
        f" {', '.join(PROTOCOLS)}",
    )
    parser.add_argument(
        "--batch_size",
        type=_batch_size,
        default="auto",
        help="slices that a GPU encodes at once, or auto for what it gains from [%(default)s]",
    )
    parser.add_argument(
        "--metrics",
        type=_metrics,
        default=",".join(Options.metrics),
        metavar="NAME,NAME...",
        help=f"of {', '.join(METRICS)}; the first two are always there [%(default)s]",
    )
    parser.add_argument(
        "--tolerance_mm",
        type=_tolerance_mm,
        default=Options.tolerance_mm,
        help="how far outlines may lie apart and still agree, for nsd [%(default)s]",
    )
    parser.add_argument(
        "--empty_slices",
        choices=EMPTY_SLICES,
        default=Options.empty_slices,
        help="slices without lung: skip them, or prompt them as the nearest one with lung, to count"
        " what SAM finds there [%(default)s]",
    )
    parser.add_argument(
        "--save_masks", action="store_true", help="write SAM's masks of a volume as NIfTI"
    )
    parser.add_argument(
        "--embeddings_folder", type=Path, help="keep SAM's image embeddings here, for later runs"
    )
    parser.add_argument(
        "--embeddings_precision",
        choices=EMBEDDINGS_PRECISIONS,
        default=Options.embeddings_precision,
        help="in which they are kept [%(default)s]",
    )
    parser.add_argument(
        "--strict_geometry",
        action="store_true",
        help="refuse an image and masks whose affines disagree or are not known",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew where a results folder holds another run, or what this one has done",
    )
    args = parser.parse_args()

    protocol = PromptProtocol(args.points, args.negative, args.negative_offset, args.box)
    if args.prompts and protocol != PromptProtocol():
        raise InputError("--prompts names whole protocols: leave out the other prompt options")
    options = Options(
        slice_index=args.slice,
        debug=args.debug,
        output_folder=args.output_folder,
        model=args.model,
        checkpoint=args.checkpoint,
        device=args.device,
        precision=args.precision,
        window=args.window,
        protocols=args.prompts or {"": protocol},
        batch_size=args.batch_size,
        metrics=args.metrics,
        tolerance_mm=args.tolerance_mm,
        empty_slices=args.empty_slices,
        save_masks=args.save_masks,
        embeddings_folder=args.embeddings_folder,
        embeddings_precision=args.embeddings_precision,
        strict_geometry=args.strict_geometry,
        overwrite=args.overwrite,
    )
    # Imported here because torch takes seconds, which --help and a mistake need not wait for.
    from sam_lungs.study.dry_run import inspect_study
    from sam_lungs.study.run import Study

    study = Study(options)
    work = inspect_study if args.dry_run else Study.run
    return work(study, args.image_file_path, args.masks_file_path)


def _protocol_names(text: str) -> dict[str, PromptProtocol]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise InputError(f"--prompts {text}: no protocol {unknown[0]!r}; --help lists them")
    return {name: PROTOCOLS[name] for name in names}


def _metrics(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError(f"--metrics {text}: no metric {unknown[0]!r}; --help lists them")
    return tuple(METRICS[name] for name in names)


def _tolerance_mm(text: str) -> float:
    try:
        tolerance_mm = float(text)
    except ValueError:
        tolerance_mm = -1
    if not 0 <= tolerance_mm < float("inf"):
        raise InputError(f"--tolerance_mm {text}: must be a number of mm, at least 0")
    return tolerance_mm


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--batch_size {text}: must be auto, or at least 1")
    return int(text)


if __name__ == "__main__":
    run_script(main)
