"""Run a script with the compact model in place of every model whose weights must be downloaded.

    python tests/with_compact.py process_image.py -i ct.nii.gz -m lungs.nii.gz --model vit_l

What a model accepts, and its family, stay those of the model that was asked for.
"""

import runpy
import sys
from pathlib import Path

from sam_lungs.segmenters import checkpoints, registry
from sam_lungs.segmenters.base import BASELINES

load = registry.load_segmenters


def load_compact(
    model, checkpoint=None, device="auto", precision="float32", model_folder=None, *options
):
    if model in BASELINES or checkpoint or model_folder:
        return load(model, checkpoint, device, precision, model_folder, *options)
    segmenters = load("compact", None, device, precision)
    for each in segmenters:
        each.identity = registry.identify(model, None, None, *options)
    return segmenters


checkpoints.published_file = lambda name: checkpoints.CHECKPOINTS["compact"]
registry.load_segmenters = load_compact
# Where scripts/*.py start Python again, see test_commands.py.
sys.executable = sys.argv[1]
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
