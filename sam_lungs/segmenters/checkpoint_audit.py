"""Files of weights from anywhere: what they claim, before PyTorch believes it.

PyTorch runs no code of a file that is loaded with `weights_only`, but lets a small one take all the
memory, time, or the stack.
"""

import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

# What torch.save writes of a dictionary of parameters, and no more: SAM's is 0.1 MB of pickle, with
# 1,200 to 2,400 tuples. A million tuples inside each other would crash Python.
MAX_PICKLE_BYTES, MAX_TUPLES = 1 << 20, 10_000
PICKLE_OPERATIONS = re.compile(
    "PROTO|STOP|MARK|GLOBAL|REDUCE|BUILD|BINPERSID|(LONG_)?BIN(PUT|GET)|NONE|NEWTRUE|NEWFALSE|"
    "BININT[12]?|LONG1|BINFLOAT|BINUNICODE|(EMPTY_)?TUPLE|TUPLE[123]|EMPTY_LIST|APPENDS?|"
    "EMPTY_DICT|SETITEMS?"
)
BYTES_PER_ELEMENT = {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2}


class _Storages(pickle.Unpickler):
    """Reads how many bytes a pickle's tensors say their storages have, and makes no tensor.

    Nothing that it can name does anything.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"),
        ):
            return lambda *_: None
        if module == "torch" and name in BYTES_PER_ELEMENT:
            return BYTES_PER_ELEMENT[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")

    def persistent_load(self, storage: tuple) -> None:
        kind, element_bytes, name, _, elements, *_ = storage
        size = elements * element_bytes
        if kind != "storage" or size < 0 or self.sizes.setdefault(name, size) != size:
            raise pickle.UnpicklingError(f"{kind} {name} of {size} bytes")


def check_claims(path: Path) -> None:
    """Raise almost anything unless PyTorch can load a file without harm, for what the file says.

    PyTorch runs no code of a file's, but it takes what memory a file asks for, calls set and tuple
    as a file tells it to, which may crash Python or never end, and looks at no checksum.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            file.seek(0)
            # PyTorch's format before 1.6: a magic number, a version, a note on the system, the
            # object, the names of its storages, and then their bytes.
            head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
            sizes = [_claimed_sizes(head) for _ in range(5)][3]
            if sum(sizes.values()) > path.stat().st_size:
                raise pickle.UnpicklingError("storages larger than the file")
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        folder = entries[0].filename.partition("/")[0]
        held = {entry.filename: entry.file_size for entry in entries}
        # PyTorch writes them uncompressed, and looks them up in any case.
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or len({name.lower() for name in held}) != len(entries):
            raise zipfile.BadZipFile("not PyTorch's")
        if sum(held.values()) > path.stat().st_size or archive.testzip():
            raise zipfile.BadZipFile("larger than the file, or with a wrong checksum")
        with archive.open(f"{folder}/data.pkl") as entry:
            sizes = _claimed_sizes(io.BytesIO(entry.read(MAX_PICKLE_BYTES)))
        if any(held[f"{folder}/data/{name}"] != size for name, size in sizes.items()):
            raise zipfile.BadZipFile("storages of another size than the file has")


def _claimed_sizes(file: BinaryIO) -> dict[str, int]:
    """Return the bytes of each storage that the pickle that begins here says there is.

    Raises almost anything when it is not what torch.save writes of a dictionary of parameters.
    """
    start = file.tell()
    tuples, before, shared = 0, "", {}
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        tuples += "TUPLE" in name
        # A memo of any length would be made for the number of its last place.
        far = "PUT" in name and argument > MAX_PICKLE_BYTES
        # A pair of a pair of a pair, each of one thing twice, would never be hashed to the end.
        if "PUT" in name:
            shared[argument] = before in ("BINUNICODE", "GLOBAL", "REDUCE")
        unshared = "GET" in name and not shared.get(argument)
        if not PICKLE_OPERATIONS.fullmatch(name) or tuples > MAX_TUPLES or far or unshared:
            raise pickle.UnpicklingError(f"{name} is no part of a checkpoint")
        before = name
    file.seek(start)
    storages = _Storages(file)
    storages.load()
    return storages.sizes
