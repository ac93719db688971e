"""SAM's zero-shot transfer to lung segmentation in chest CT: the steps behind the scripts.

The folders in the order of the data:

    data/        files                        -> Case: image, masks, window
    prompts/     label mask                   -> Prompts: points and a box
    segmenters/  RGB slice, Prompts           -> mask, predicted IoU
    study/       Case                         -> results folder
    summary/     results folders              -> tables, statistics, report.html
    synthetic/   seed                         -> phantoms; the compact SAM trained on them
    utils/       command lines, files, downloads, errors; independent of CT and SAM

The Python API, imported on first use:

    files = sam_lungs.CaseFiles(Path("image.nii.gz"), (Path("masks.nii.gz"),))
    case = sam_lungs.read_case(files)
    rgb = sam_lungs.slice_to_rgb(case.image.array[:, :, 122], case.window)
    prompts = sam_lungs.make_prompts(case.masks.array[:, :, 122], sam_lungs.PromptProtocol())
    segmenter, *_ = sam_lungs.load_segmenters("vit_l")
    prediction = sam_lungs.segment(segmenter, rgb, prompts)
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

__version__ = "1.0.0"

# Checked before any other import, which would fail with a traceback.
if sys.version_info < (3, 11):
    sys.exit("error: Python 3.11 or newer is needed; run scripts/setup.sh")
_PACKAGES = (
    *("torch", "torchvision", "segment_anything", "safetensors", "nibabel", "numpy", "cv2"),
    *("matplotlib", "PIL", "jinja2", "pandas", "yaml", "scipy", "monai", "filelock", "tqdm"),
)
_missing = [name for name in _PACKAGES if find_spec(name) is None]
if _missing:
    sys.exit(
        f"error: packages are missing in this Python ({', '.join(_missing)}); run scripts/setup.sh"
    )
# A notebook names its backend to its child processes too. Where it is not installed, matplotlib
# would fail, although no figure here needs a backend.
_kind, _, _backend = os.environ.get("MPLBACKEND", "").partition("://")
if _kind == "module" and find_spec(_backend.partition(".")[0]) is None:
    del os.environ["MPLBACKEND"]

_API = {
    "CaseFiles": "data.case_files",
    "Reading": "data.case_files",
    "read_case": "data.case",
    "slice_to_rgb": "data.windowing",
    "PromptProtocol": "prompts.protocols",
    "make_prompts": "prompts.rules",
    "load_segmenters": "segmenters.registry",
    "segment": "segmenters.base",
}
__all__ = sorted(_API)


def __getattr__(name: str) -> object:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_API[name]}"), name)
