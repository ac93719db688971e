"""Families of models from transformers: what each takes and gives, as in its authors' code.

Importing this module imports neither torch nor transformers. `preprocessing.py` has the code of the
rules that are named here; docs/models.md explains how to add a family.
"""

from dataclasses import dataclass, field

from sam_lungs.segmenters.base import PROMPT_KINDS
from sam_lungs.utils.provenance import versions_of

# Compute the embeddings and masks of these families.
PACKAGES = ("torch", "torchvision", "transformers", "segment-anything", "numpy", "pillow", "scipy")

ALL_PROMPTS = frozenset(PROMPT_KINDS)
SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

RESIZES = {
    "longest_side": "longest side resized as uint8 by PIL, zeros after norm",
    "floats": "squashed to a square as floats from 0 to 1, bilinear, antialiased",
    "uint8": "squashed to a square, bilinear, antialiased, rounded to uint8, then from 0 to 1",
    "bicubic": "squashed to a square by a cubic spline, truncated to uint8, then own range to 0..1",
}
MASK_RULES = {
    "crop": "logits to the input's square, bilinear; padding cropped; bilinear to the slice; > 0",
    "direct": "logits bilinear to the slice; > 0",
    "fill_holes": "holes of up to 256 logits filled; logits bilinear to the slice; > 0",
    "sigmoid": "sigmoid; probabilities bilinear to the slice; > 0.5",
}
CHOICES = {
    "token0": "token 0",
    "best_score": "the best-scored of tokens 1 to 3",
    "stability": "token 0, or the best-scored of tokens 1 to 3 when its stability is below 0.98",
}


@dataclass(frozen=True)
class Family:
    """One family of models.

    model_types: in `config.json`, of the weights that the family is chosen for by itself.
    model_class: of transformers.
    resize: one of `RESIZES`. mean, std: of the channels, on the scale of the resized slice.
    mask_rule: one of `MASK_RULES`. model_choice: one of `CHOICES`, the authors' choice of a mask
        when one is asked for.
    embedding: its tensors, one of `hf.EMBEDDINGS`.
    prompt_kinds: see `base.Segmenter`.
    norm_eps: module -> epsilon of its layer norms in the authors' code, where transformers or its
        published configurations have another.
    licence: of the published weights.
    native_window: level and width, in Hounsfield units, of the authors' window for lungs in CT.
    note: what a reader of the results must know.
    """

    model_types: tuple[str, ...]
    model_class: str
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mask_rule: str
    model_choice: str
    embedding: str
    licence: str
    prompt_kinds: frozenset[str] = ALL_PROMPTS
    norm_eps: dict[str, float] = field(default_factory=dict)
    native_window: tuple[float, float] | None = None
    note: str = ""

    @property
    def preprocessing(self) -> str:
        """What happens to the 8-bit slice, for `identity`."""
        numbers = " ".join(str(number) for number in (*self.mean, *self.std))
        return f"{RESIZES[self.resize]}; mean and deviation {numbers}"


SAM_DECODER_EPS = {"mask_decoder.transformer": 1e-5}

FAMILIES = {
    # Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643; SlimSAM: Chen et al., NeurIPS
    # 2024, arXiv:2312.05284. Code: facebookresearch/segment-anything.
    "sam": Family(
        model_types=("sam",),
        model_class="SamModel",
        resize="longest_side",
        mean=SAM_MEAN,
        std=SAM_STD,
        mask_rule="crop",
        model_choice="token0",
        embedding="one",
        licence="Apache-2.0",
        norm_eps=SAM_DECODER_EPS,
    ),
    # Ma et al., Segment anything in medical images, Nature Communications 2024,
    # doi 10.1038/s41467-024-44824-z; the window is in its section on preprocessing. Code:
    # MedSAM_Inference.py of bowang-lab/MedSAM.
    "medsam": Family(
        model_types=(),  # its `config.json` is SAM's
        model_class="SamModel",
        resize="bicubic",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        mask_rule="sigmoid",
        model_choice="token0",
        embedding="one",
        licence="Apache-2.0",
        prompt_kinds=frozenset({"box"}),
        norm_eps=SAM_DECODER_EPS,
        native_window=(-160, 1500),
        note="Trained with boxes only. Its predicted IoU was not trained.",
    ),
    # Ke et al., Segment Anything in High Quality, NeurIPS 2023, arXiv:2306.01567. Code:
    # SysCV/sam-hq.
    "sam_hq": Family(
        model_types=("sam_hq",),
        model_class="SamHQModel",
        resize="longest_side",
        mean=SAM_MEAN,
        std=SAM_STD,
        mask_rule="crop",
        model_choice="token0",
        embedding="with_intermediate",
        licence="Apache-2.0",
        norm_eps=SAM_DECODER_EPS,
        note="Its predicted IoU is that of SAM's mask, not of the returned one.",
    ),
    # Ravi et al., SAM 2, ICLR 2025, arXiv:2408.00714. Code: facebookresearch/sam2.
    "sam2": Family(
        model_types=("sam2", "sam2_video"),
        model_class="Sam2Model",
        resize="floats",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        mask_rule="direct",
        model_choice="stability",
        embedding="pyramid",
        licence="Apache-2.0",
    ),
    # Zhou et al., EdgeTAM, CVPR 2025, arXiv:2501.07256. Code: facebookresearch/EdgeTAM.
    "edgetam": Family(
        model_types=("edgetam", "edgetam_video"),
        model_class="EdgeTamModel",
        resize="floats",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        mask_rule="direct",
        model_choice="stability",
        embedding="pyramid",
        licence="Apache-2.0",
        note="Needs the package timm.",
    ),
    # Carion et al., SAM 3, arXiv:2511.16719. Code: Sam3Processor and SAM3InteractiveImagePredictor
    # of facebookresearch/sam3.
    "sam3": Family(
        model_types=("sam3_tracker", "sam3_tracker_video", "sam3_video"),
        model_class="Sam3TrackerModel",
        resize="uint8",
        mean=HALF,
        std=HALF,
        mask_rule="fill_holes",
        model_choice="stability",
        embedding="pyramid",
        licence="SAM License",
        norm_eps={"vision_encoder.backbone": 1e-5},
        note="Points and boxes only, no text.",
    ),
}


def family_of(model_type: str) -> str | None:
    """Return the family of a model type of `config.json`; None when there is none."""
    return next((name for name, each in FAMILIES.items() if model_type in each.model_types), None)


def describe(family: str, mask_choice: str = "model", preprocessing: str = "common") -> dict:
    """Return the part of `Segmenter.identity` that does not depend on the weights.

    family: of `FAMILIES`. mask_choice: one of `base.MASK_CHOICES`. preprocessing: how the caller
        makes the 8-bit slice, one of `base.PREPROCESSINGS`.
    """
    rules = FAMILIES[family]
    choice = rules.model_choice if mask_choice == "model" else mask_choice
    packages = (*PACKAGES, "timm") if family == "edgetam" else PACKAGES
    return {
        "family": family,
        "preprocessing": f"{preprocessing} slice; {rules.preprocessing}",
        "mask_choice": CHOICES[choice],
        "mask_rule": MASK_RULES[rules.mask_rule],
        "prompt_kinds": [kind for kind in PROMPT_KINDS if kind in rules.prompt_kinds],
        "note": rules.note,
        "packages": versions_of(packages),
    }
