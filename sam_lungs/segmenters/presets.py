"""The models by name, with what is known of their weights. Importing this does not import torch.

To add a model of a family that `transformers` has, add a line to `PRESETS`.
"""

import re
from dataclasses import dataclass, field

from sam_lungs.segmenters.base import BASELINES, MODELS
from sam_lungs.utils.errors import InputError

# Meta: https://github.com/facebookresearch/sam2#model-checkpoints.
SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
# The authors' record, DOI 10.5281/zenodo.10689643.
MEDSAM_URL = "https://zenodo.org/records/10689643/files"
HUB_NAME = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@([0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True)
class Original:
    """A weights file that the authors publish, with the parameter names of their own code.

    url: of the folder. sha256: lower-case hexadecimal.
    """

    url: str
    file_name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Preset:
    """A model that runs in `transformers`.

    A preset has either `original` and `config` or `repository`.

    family: of `families.FAMILIES`.
    original: the weights as the authors publish them. config: the content of a config.json for
        them; what it leaves out has the default of `transformers`.
    repository: OWNER/NAME on the hub. revision: its commit; None if none is known, then the commit
        of the first fetch is kept.
    sha256: of files of the repository, as far as they are known.
    """

    family: str
    repository: str | None = None
    revision: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    original: Original | None = None
    config: dict = field(default_factory=dict)


def _sam2(size: str, size_bytes: int, sha256: str, **backbone: object) -> Preset:
    """backbone: from sam2/configs/sam2.1 of the authors' code, for all but the tiny model."""
    vision = {"backbone_config": {"model_type": "sam2_hiera_det_model", **backbone}}
    if "embed_dim_per_stage" in backbone:
        vision["backbone_channel_list"] = backbone["embed_dim_per_stage"][::-1]
    return Preset(
        "sam2",
        original=Original(SAM2_URL, f"sam2.1_hiera_{size}.pt", size_bytes, sha256),
        config={"model_type": "sam2", "vision_config": vision},
    )


PRESETS = {
    "sam2.1_hiera_tiny": _sam2(
        "tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"
    ),
    "sam2.1_hiera_small": _sam2(
        "small",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        blocks_per_stage=[1, 2, 11, 2],
        global_attention_blocks=[7, 10, 13],
    ),
    "sam2.1_hiera_base_plus": _sam2(
        "base_plus",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        hidden_size=112,
        num_attention_heads=2,
        blocks_per_stage=[2, 3, 16, 3],
        embed_dim_per_stage=[112, 224, 448, 896],
        num_attention_heads_per_stage=[2, 4, 8, 16],
        global_attention_blocks=[12, 16, 20],
        window_positional_embedding_background_size=[14, 14],
    ),
    "sam2.1_hiera_large": _sam2(
        "large",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        hidden_size=144,
        num_attention_heads=2,
        blocks_per_stage=[2, 6, 36, 4],
        embed_dim_per_stage=[144, 288, 576, 1152],
        num_attention_heads_per_stage=[2, 4, 8, 16],
        window_size_per_stage=[8, 4, 16, 8],
        global_attention_blocks=[23, 33, 43],
    ),
    "slimsam_50": Preset("sam", "nielsr/slimsam-50-uniform"),
    "slimsam_77": Preset("sam", "nielsr/slimsam-77-uniform"),
    "medsam": Preset(
        "medsam",
        original=Original(
            MEDSAM_URL,
            "medsam_vit_b.pth",
            375_049_145,
            "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
        ),
        config={"model_type": "sam"},
    ),
    "sam_hq_vit_b": Preset("sam_hq", "syscv-community/sam-hq-vit-base"),
    "sam_hq_vit_l": Preset("sam_hq", "syscv-community/sam-hq-vit-large"),
    "sam_hq_vit_h": Preset("sam_hq", "syscv-community/sam-hq-vit-huge"),
    "edgetam": Preset("edgetam", "yonigozlan/EdgeTAM-hf"),
    # Its owner grants access on request.
    "sam3": Preset(
        "sam3",
        "facebook/sam3",
        "3c879f39826c281e95690f02c7821c4de09afae7",
        {"model.safetensors": "6d06f0a5f84e435071fe6603e61d0b4cc7b40e0d39d487cfd4d67d8cc11cc14a"},
    ),
}
WITH_WEIGHTS = (*MODELS, *PRESETS)
NAMES = (*WITH_WEIGHTS, *BASELINES)


def parse_model(text: str) -> str:
    """Return the name of a model: one of `NAMES`, or hub:OWNER/NAME@REVISION.

    Raises `InputError` with the rest of the sentence "--model text: ...".
    """
    if text in NAMES or HUB_NAME.fullmatch(text):
        return text
    if text.startswith("hub:"):
        raise InputError(
            "give hub:OWNER/NAME@REVISION, where REVISION is a commit of 40 hexadecimal digits, as"
            " the repository's page lists under History"
        )
    raise InputError(f"unknown model; the models are {', '.join(NAMES)}, hub:OWNER/NAME@REVISION")


def folder_name(model: str) -> str:
    """Return the name of a folder for the files of a model; model: see `parse_model`."""
    return model.removeprefix("hub:").replace("/", "--")


def preset_of(model: str) -> Preset | None:
    """Return the preset of a model's name; None for those of segment-anything and baselines.

    For hub:OWNER/NAME@REVISION the family is "", because it depends on the config.json.

    Raises `InputError` as `parse_model` does.
    """
    parse_model(model)
    if found := HUB_NAME.fullmatch(model):
        return Preset("", found[1], found[2])
    return PRESETS.get(model)
