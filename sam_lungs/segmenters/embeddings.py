"""Image embeddings on disk: a later run with other prompts does not need the image encoder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sam_lungs.segmenters.base import NotFiniteError
from sam_lungs.segmenters.finite import all_finite
from sam_lungs.utils.files import atomic_write


@dataclass(frozen=True)
class EmbeddingStore:
    """The embeddings of one volume: a folder with one .npz file per slice.

    Each file also holds a signature: everything that the embedding depends on, including a hash of
    the slice's voxels. A file that is missing, damaged, or has another signature or numbers that
    are not finite, is a cache miss.

    folder: created when the first slice is saved.
    identity: of the segmenter, see `base.Segmenter`; its family, weights' hashes, preprocessing and
        packages are part of the signature.
    window_hu: lower and upper limit, None without a window.
    precision: of the image encoder, one of `base.PRECISIONS`.
    stored_precision: of the numbers on disk, one of `base.EMBEDDINGS_PRECISIONS`.

    An embedding here belongs to one slice: a tuple of tensors without the slice dimension.
    """

    folder: Path
    identity: dict
    window_hu: list[float] | None
    precision: str
    stored_precision: str

    def load(self, index: int, voxels: np.ndarray) -> tuple[torch.Tensor, ...] | None:
        """Return the embedding of a slice, float32 on the CPU, or None.

        voxels: (rows, columns), as stored in the volume.
        """
        try:
            # If np.load opens a file and cannot read it, the file stays open. So open it here.
            with open(self._path(index), "rb") as file, np.load(file) as arrays:
                if arrays["signature"].item() != self._signature(voxels):
                    return None
                # A damaged zip file may have fewer arrays than were saved.
                numbers = range(arrays["tensors"].item())
                kept = tuple(torch.from_numpy(arrays[f"embedding_{n}"]).float() for n in numbers)
                return kept if all_finite(kept) else None
        except Exception:  # a damaged file raises almost any type
            return None

    def save(self, index: int, voxels: np.ndarray, embedding: tuple[torch.Tensor, ...]) -> None:
        """Write the embedding of a slice.

        Raises `InputError` when it cannot be written.
        """
        arrays = {"signature": self._signature(voxels), "tensors": len(embedding)}
        arrays |= {
            f"embedding_{n}": tensor.to("cpu", self._dtype).numpy()
            for n, tensor in enumerate(embedding)
        }
        with atomic_write(self._path(index)) as temporary:
            np.savez(temporary, **arrays)

    def round(self, embedding: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return the embedding as `load` returns it: a cache miss must give the same results.

        embedding: finite. Raises `NotFiniteError` when it is too large for its precision on disk.
        """
        rounded = tuple(tensor.to(self._dtype).float() for tensor in embedding)
        if not all_finite(rounded):
            raise NotFiniteError(
                f"{self.identity['model']}: the embedding has values that are too large for"
                f" --embeddings_precision {self.stored_precision}; use float32"
            )
        return rounded

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.stored_precision)

    def _path(self, index: int) -> Path:
        return self.folder / f"slice_{index:04d}.npz"

    def _signature(self, voxels: np.ndarray) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(voxels)).hexdigest()
        signed = {
            "family": self.identity["family"],
            "weights": sorted(self.identity["weights"].values()),
            "preprocessing": self.identity["preprocessing"],
            "packages": self.identity["packages"],
            "window_hu": self.window_hu,
            "precision": self.precision,
            "stored_precision": self.stored_precision,
            "voxels": {"shape": voxels.shape, "dtype": voxels.dtype.str, "sha256": digest},
        }
        return json.dumps(signed, sort_keys=True)
