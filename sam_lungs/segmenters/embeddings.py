"""Image embeddings kept on disk, so that prompts can be tried again without the image encoder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sam_lungs.study.options import EMBEDDINGS_PRECISIONS
from sam_lungs.utils.files import replacing

DTYPES = {name: getattr(torch, name) for name in EMBEDDINGS_PRECISIONS}

# Changes whenever other numbers come out of the same voxels and weights.
PREPROCESSING = "window, slice's own range to uint8, longest side resized by PIL, zeros after norm"


@dataclass(frozen=True)
class EmbeddingStore:
    """The embeddings of one volume: a folder with a file for each slice.

    Each file holds, beside the embedding, all that made it (`signature`, and a hash of the slice's
    voxels). One that was made otherwise, is damaged or not there is as good as none. Files are
    written whole or not at all, so that what a killed run leaves can be used.

    folder: made when the first slice is saved.
    signature: window, weights, precision, versions: whatever the embedding depends on, as JSON
        holds it.
    dtype: of the numbers on disk, one of `DTYPES`.
    """

    folder: Path
    signature: dict
    dtype: torch.dtype

    def load(self, index: int, voxels: np.ndarray) -> torch.Tensor | None:
        """Return the embedding of a slice, (channels, side, side) float32, or `None`.

        voxels: (rows, columns), as they are in the volume.
        """
        try:
            # Opened here, because np.load leaves a file open that it cannot read.
            with open(self._path(index), "rb") as file, np.load(file) as arrays:
                if arrays["signature"].item() != self._sign(voxels):
                    return None
                return torch.from_numpy(arrays["embedding"]).float()
        except Exception:  # a damaged file raises almost any type
            return None

    def save(self, index: int, voxels: np.ndarray, embedding: torch.Tensor) -> None:
        """Keep the embedding of a slice, as `load` takes and returns them.

        Raises `InputError` when it cannot be written.
        """
        with replacing(self._path(index)) as temporary:
            np.savez(
                temporary,
                signature=self._sign(voxels),
                embedding=embedding.to("cpu", self.dtype).numpy(),
            )

    def round(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return what `load` will: results do not depend on whether an embedding was kept."""
        return embeddings.to(self.dtype).float()

    def _path(self, index: int) -> Path:
        return self.folder / f"slice_{index:04d}.npz"

    def _sign(self, voxels: np.ndarray) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(voxels)).hexdigest()
        signed = {
            "voxels": {"shape": voxels.shape, "dtype": voxels.dtype.str, "sha256": digest},
            "preprocessing": PREPROCESSING,
            "stored_as": str(self.dtype),
        }
        return json.dumps(self.signature | signed, sort_keys=True)
