"""Truncated, damaged and malicious volume files are refused, or read as they were written.

Whatever happens to the bytes of a file, reading it gives the voxels and the geometry that were
written or raises `InputError`, allocates no memory for what a header only claims, and runs no code.

A `.nii` file, and a `.npy` file without its sidecar, have no checksum. Damage inside their voxels
cannot be detected, so only the last two promises hold for them.
"""

import gzip
import io
import itertools
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nibabel import orientations
from patient import ALL_ORIENTATIONS

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.guard import MAX_VOLUME_BYTES
from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Volume
from sam_lungs.utils.errors import InputError

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5) * 37 - 300
AFFINE = np.array([[0, -0.75, 0, 9], [-0.5, 0, 0, -8], [0, 0, 2, 30], [0, 0, 0, 1.0]])
HEADERS = {1: nib.Nifti1Header, 2: nib.Nifti2Header}
ALL_FLIPS = (0xFF, *(1 << bit for bit in range(8)))
SOME_FLIPS = (0xFF, 0x01)
ENOUGH_BYTES = 24 << 20


def nifti(version=1, endianness="<", voxels=VOXELS, affine=AFFINE, **fields) -> bytes:
    """Return a NIfTI file of `voxels`, along its own axes; fields: of its header."""
    header = HEADERS[version](endianness=endianness)
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_sform(affine, code=1)
    for name, value in {"vox_offset": header.single_vox_offset, **fields}.items():
        header[name] = value
    stored = voxels.astype(voxels.dtype.newbyteorder(endianness))
    return header.binaryblock + bytes(4) + stored.tobytes("F")


def npy(array=VOXELS, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(save=np.savez_compressed, array=VOXELS) -> bytes:
    buffer = io.BytesIO()
    save(buffer, volume=np.asfortranarray(array))
    return buffer.getvalue()


SAMPLES = {
    **{
        f"nifti{version}{'big' if endianness == '>' else 'little'}{suffix}": pack(
            nifti(version, endianness)
        )
        for version, endianness in itertools.product((1, 2), "<>")
        for suffix, pack in ((".nii", bytes), (".nii.gz", lambda raw: gzip.compress(raw, mtime=0)))
    },
    "c.npy": npy(),
    "fortran.npy": npy(np.asfortranarray(VOXELS)),
    "stored.npz": npz(np.savez),
    "deflated.npz": npz(),
}
CHECKSUMMED = [name for name in SAMPLES if name.endswith((".npz", ".gz"))]
UNCHECKED = [name for name in SAMPLES if name not in CHECKSUMMED]
CONVERTED = ["image.npy", "image.npz"]


def truncations(content: bytes):
    """Return every proper prefix of a file."""
    return [content[:length] for length in range(len(content))]


def flips(content: bytes, masks=ALL_FLIPS):
    """Yield a file with one byte damaged, at each position: each bit alone, and all bits."""
    for position, flip in itertools.product(range(len(content)), masks):
        damaged = bytearray(content)
        damaged[position] ^= flip
        yield damaged


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Draw a file with some pieces overwritten, removed or inserted."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(damaged)))
        end = min(len(damaged), start + draw(st.integers(0, 16)))
        piece = draw(st.binary(max_size=16))
        if draw(st.booleans()):
            piece = piece[: end - start].ljust(end - start, b"\0")
        damaged[start:end] = piece
    return bytes(damaged)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def converted(folder):
    """Arrays with their sidecars, as the conversion writes them."""
    (folder / "image.nii").write_bytes(SAMPLES["nifti1little.nii"])
    for name in CONVERTED:
        write_numpy(read_nifti(folder / "image.nii", "radiological"), folder / name)
    return folder


@pytest.fixture(scope="module")
def originals(folder, converted):
    """The samples and the converted arrays, read from intact files."""
    samples = {name: read(written(folder / name, SAMPLES[name])) for name in SAMPLES}
    return samples | {name: read(converted / name) for name in CONVERTED}


def written(path: Path, content: bytes) -> Path:
    # A new file: some file systems wait for the disk when a file is truncated and rewritten.
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def read(path: Path, orientation: str = "paper") -> Volume | None:
    """Read a volume; `None` if it is refused, in one line that names the file."""
    try:
        if path.name.endswith((".nii", ".gz")):
            return read_nifti(path, orientation)
        return read_volume(path)
    except InputError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    return None


def assert_same(volume: Volume | None, original: Volume) -> None:
    """Assert that a volume was refused, or has the voxels and geometry of the original."""
    if volume is None:
        return
    np.testing.assert_array_equal(volume.array, original.array)
    assert volume.array.dtype == original.array.dtype
    assert (volume.geometry is None) == (original.geometry is None)
    if volume.geometry:
        np.testing.assert_array_equal(volume.geometry.affine, original.geometry.affine)
        np.testing.assert_array_equal(
            volume.geometry.file_to_array, original.geometry.file_to_array
        )
        assert volume.geometry.file_shape == original.geometry.file_shape
        assert volume.geometry.header == original.geometry.header


@contextmanager
def little_memory(limit_bytes=ENOUGH_BYTES):
    """Assert that the block never allocates more memory than this."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit_bytes


# Truncated, damaged


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_truncated_at_any_byte_is_refused(folder, name):
    content = SAMPLES[name]
    assert read(written(folder / name, content)) is not None
    for shorter in truncations(content):
        assert read(written(folder / name, shorter)) is None


@pytest.mark.parametrize("name", CHECKSUMMED)
def test_a_flipped_byte_in_a_file_with_a_checksum_is_refused_or_harmless(folder, originals, name):
    for content in flips(SAMPLES[name]):
        assert_same(read(written(folder / name, content)), originals[name])


@pytest.mark.parametrize("suffix", ["", ".json"])
@pytest.mark.parametrize("name", CONVERTED)
def test_a_damaged_array_or_sidecar_is_refused_or_harmless(converted, originals, name, suffix):
    path = converted / f"{name}{suffix}"
    content = path.read_bytes()
    try:
        for other in itertools.chain(flips(content), truncations(content)):
            written(path, other)
            assert_same(read(converted / name), originals[name])
    finally:
        written(path, content)


@pytest.mark.parametrize("name", UNCHECKED)
def test_a_flipped_byte_in_a_file_without_a_checksum_needs_no_memory_and_is_one_line(folder, name):
    with little_memory():
        for content in flips(SAMPLES[name], SOME_FLIPS):
            read(written(folder / name, content))


@given(st.sampled_from(CHECKSUMMED).flatmap(lambda n: st.tuples(st.just(n), damaged(SAMPLES[n]))))
def test_random_damage_in_a_file_with_a_checksum_is_refused_or_harmless(folder, originals, sample):
    name, content = sample
    assert_same(read(written(folder / name, content)), originals[name])


@given(st.data(), st.sampled_from(CONVERTED), st.sampled_from(["", ".json"]))
def test_random_damage_in_an_array_or_sidecar_is_refused_or_harmless(
    converted, originals, data, name, suffix
):
    path = converted / f"{name}{suffix}"
    content = path.read_bytes()
    try:
        written(path, data.draw(damaged(content)))
        assert_same(read(converted / name), originals[name])
    finally:
        written(path, content)


@given(st.sampled_from(UNCHECKED).flatmap(lambda n: st.tuples(st.just(n), damaged(SAMPLES[n]))))
def test_random_damage_without_a_checksum_needs_no_memory_and_is_one_line(folder, sample):
    name, content = sample
    with little_memory():
        read(written(folder / name, content))


@given(st.sampled_from([".nii", ".nii.gz", ".npy", ".npz"]), st.binary(max_size=2000), st.data())
def test_noise_after_a_valid_start_needs_no_memory_and_is_one_line(folder, suffix, noise, data):
    name = data.draw(st.sampled_from([name for name in SAMPLES if name.endswith(suffix)]))
    kept = data.draw(st.integers(0, len(SAMPLES[name])))
    with little_memory():
        read(written(folder / name, SAMPLES[name][:kept] + noise))


# Malicious

ZEROS_1_MIB = zlib.compressobj(wbits=-15)
ZEROS_1_MIB = ZEROS_1_MIB.compress(bytes(1 << 20)) + ZEROS_1_MIB.flush(zlib.Z_FULL_FLUSH)


def bomb(start: bytes, mib: int) -> bytes:
    """Return raw deflate of `start` and this many MiB of zeros, without an end."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + ZEROS_1_MIB * mib


GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
CLAIMS = {
    "petabytes in NIfTI-1": nifti(dim=[7] + [32767] * 7),
    "petabytes in three dimensions": nifti(dim=[3] + [32767] * 3 + [1] * 4),
    "petabytes in NIfTI-2": nifti(2, dim=[3] + [2**62] * 3 + [1] * 4),
    "just too much": nifti(2, ">", dim=[3, 2**16, 2**15, 1, 1, 1, 1, 1]),
    "just not too much": nifti(2, ">", dim=[3, 2**16, 2**14, 1, 1, 1, 1, 1]),
    "negative": nifti(dim=[3, -3, -4, 5, 1, 1, 1, 1]),
    "FreeSurfer's long vector": nifti(dim=[3, -1, 1, 1, 1, 1, 1, 1], glmin=2**31 - 1),
    "voxels in another file": nifti(vox_offset=0, magic=b"ni1"),
    "voxels right behind the header": nifti(vox_offset=348, magic=b"ni1"),
    "no voxels": nifti(dim=[3, 3, 0, 5, 1, 1, 1, 1]),
    **{
        f"voxels at {offset}": nifti(vox_offset=offset)
        for offset in (np.nan, np.inf, -np.inf, -1, -352, 0, 1, 348, 351, 1e9, 4e9, 3e38)
    },
    **{
        f"voxels at {offset} in NIfTI-2": nifti(2, vox_offset=offset)
        for offset in (-1, 0, 540, 2**32, 2**63 - 1, -(2**63))
    },
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_of_a_nifti_header_alone_needs_no_memory(folder, claim):
    with little_memory():
        assert read(written(folder / "claim.nii", CLAIMS[claim])) is None
        packed = GZIP_HEADER + bomb(CLAIMS[claim], 0)
        assert read(written(folder / "claim.nii.gz", packed)) is None
        assert read(written(folder / "claim.nii.gz", gzip.compress(CLAIMS[claim]))) is None


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim != "just not too much"])
def test_a_gzip_bomb_after_a_nifti_header_needs_no_memory(folder, claim):
    path = written(folder / "bomb.nii.gz", GZIP_HEADER + bomb(CLAIMS[claim], 16 << 10))
    with little_memory(ENOUGH_BYTES + path.stat().st_size):
        assert read(path) is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_gzip_bomb_after_the_voxels_needs_no_memory(folder, version):
    path = written(folder / "bomb.nii.gz", GZIP_HEADER + bomb(nifti(version), 16 << 10))
    with little_memory(ENOUGH_BYTES + path.stat().st_size):
        assert read(path) is None


def test_up_to_one_mib_may_follow_the_voxels(folder):
    for suffix, pack in ((".nii", bytes), (".nii.gz", gzip.compress)):
        path = folder / f"trailing{suffix}"
        assert read(written(path, pack(nifti() + bytes(1 << 20)))) is not None
        assert read(written(path, pack(nifti() + bytes((1 << 20) + 1)))) is None


def test_extensions_and_several_gzip_members_are_accepted(folder):
    header, voxels = nifti(vox_offset=352 + 2**20)[:352], nifti()[352:]
    content = header[:348] + b"\1\0\0\0" + struct.pack("<ii", 2**20, 2) + bytes(2**20 - 8) + voxels
    original = read(written(folder / "plain.nii", nifti()))
    for path, packed in (
        (folder / "extended.nii", content),
        (folder / "extended.nii.gz", gzip.compress(content)),
        (folder / "members.nii.gz", gzip.compress(content[:999]) + gzip.compress(content[999:])),
        (folder / "padded.nii.gz", gzip.compress(content) + bytes(99)),
    ):
        volume = read(written(path, packed))
        assert volume is not None
        assert_same(volume, original)


def test_the_gzip_checksum_after_the_voxels_is_compared(folder):
    content = bytearray(gzip.compress(nifti() + bytes(1000)))
    content[-5] ^= 1
    assert read(written(folder / "image.nii.gz", content)) is None


def npy_of(header: str, rest: bytes = VOXELS.tobytes(), version=1, length=None) -> bytes:
    """Return a `.npy` with any text as its header, whose length is given as `length`."""
    size = struct.pack("<H" if version == 1 else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin1") + rest


def npy_header(shape, descr="'<i2'", order=False) -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


NPY_HEADERS = {
    "more than there is": npy_of(npy_header("(3, 4, 6)")),
    "less than there is": npy_of(npy_header("(3, 4, 4)")),
    "a little more": npy_of(npy_header("(3, 4, 5)"), VOXELS.tobytes()[:-1]),
    "petabytes": npy_of(npy_header("(99999999, 99999999, 99999999)")),
    "more than 64 bits": npy_of(npy_header(f"({2**63}, {2**63}, 1)")),
    "zero modulo 64 bits": npy_of(npy_header(f"({2**32}, {2**31}, 2)"), b""),
    "a hundred digits": npy_of(npy_header(f"({'9' * 100}, {'9' * 100}, {'9' * 100})")),
    "four gigabytes": npy_of(npy_header("(65536, 16384, 2)")),
    "negative": npy_of(npy_header("(-3, -4, 5)")),
    "minus one": npy_of(npy_header("(-1, 4, 5)")),
    "nothing": npy_of(npy_header("(0, 4, 5)"), b""),
    "fractions": npy_of(npy_header("(3.0, 4, 5)")),
    "a list": npy_of(npy_header("[3, 4, 5]")),
    "objects": npy_of(npy_header("(3, 4, 5)", "'|O'")),
    "objects inside": npy_of(npy_header("(3, 4, 5)", "[('a', '|O')]")),
    "large voxels": npy_of(npy_header("(1, 1, 1)", "'V2147483647'")),
    "arrays as voxels": npy_of(npy_header("(1, 1, 1)", "('<i2', (30000, 30000, 30000))")),
    "deep brackets": npy_of("(" * 900),
    "deep signs": npy_of(npy_header("-" * 60_000 + "1")),
    "signs": npy_of(npy_header("-" * 800 + "1")),
    "code": npy_of(npy_header("(__import__('os').system('true'), 4, 5)")),
    "a long header": npy_of(npy_header("(3, 4, 5)") + " " * 60_000),
    "a header beyond the file": npy_of(npy_header("(3, 4, 5)"), length=60_000),
    "a header of gigabytes": npy_of(npy_header("(3, 4, 5)"), version=2, length=2**32 - 1),
    "no version": npy_of(npy_header("(3, 4, 5)"), version=9),
    "no header": npy_of(""),
    "not Latin-1": b"\x93NUMPY\x03\0\2\0\0\0\xff\xff",
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("header", NPY_HEADERS)
def test_a_claim_of_a_npy_header_alone_needs_no_memory(folder, header):
    content = NPY_HEADERS[header]
    with little_memory():
        assert read(written(folder / "claim.npy", content)) is None
        packed = zlib.compress(content, wbits=-15)
        assert read(written(folder / "claim.npz", zip_of(packed, content))) is None


def zip_of(packed: bytes, content: bytes = b"", size=None, method=8, members=1, flags=0) -> bytes:
    """Return a zip of a member `volume.npy` with any size and checksum."""
    name = b"volume.npy"
    size = len(content) if size is None else size
    crc = zlib.crc32(content)
    zip64 = struct.pack("<HHQ", 1, 8, size) if size >= 2**32 else b""
    facts = struct.pack(
        *("<HHHHIII", flags, method, 0, 0x21, crc, len(packed), min(size, 2**32 - 1))
    )
    local = b"PK\3\4" + struct.pack("<H", 45) + facts + struct.pack("<HH", len(name), 0) + name
    entry = b"PK\1\2" + struct.pack("<HH", 45, 45) + facts
    entry += struct.pack("<HHHHHII", len(name), len(zip64), 0, 0, 0, 0, 0) + name + zip64
    directory = entry * members
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(local) + len(packed), 0)
    return local + packed + directory + b"PK\5\6" + end


def test_the_zips_of_these_tests_are_valid(folder):
    content = npy()
    volume = read(written(folder / "a.npz", zip_of(zlib.compress(content, wbits=-15), content)))
    np.testing.assert_array_equal(volume.array, VOXELS)


START_OF_BOMB = {
    "a small array and all the zeros": (npy(), 16 << 30),
    "an array of all the zeros": (npy_of(npy_header("(8192, 1024, 1024)"), b""), (16 << 30) + 128),
    "an array of less": (npy_of(npy_header("(1024, 1024, 1024)"), b""), 16 << 30),
    "no array": (b"", 16 << 30),
    "an endless header": (npy_of("", b"", version=2, length=2**32 - 1), 16 << 30),
    "too much by a little": (npy_of(npy_header("(2048, 1024, 1025)"), b""), None),
}


@pytest.mark.parametrize("start", START_OF_BOMB)
def test_a_zip_bomb_needs_no_memory(folder, start):
    content, size = START_OF_BOMB[start]
    bombed = zip_of(bomb(content, 16 << 10), content, size)
    path = written(folder / "bomb.npz", bombed)
    with little_memory(ENOUGH_BYTES + len(bombed)):
        assert read(path) is None


def test_zeros_after_a_zip_member_are_not_decompressed(folder):
    content = npy()
    bombed = zip_of(bomb(content, 16 << 10), content)
    with little_memory(ENOUGH_BYTES + len(bombed)):
        volume = read(written(folder / "bomb.npz", bombed))
    np.testing.assert_array_equal(volume.array, VOXELS)


@pytest.mark.parametrize(
    "content",
    [
        zip_of(zlib.compress(npy(), wbits=-15), npy(), size=len(npy()) - 1),
        zip_of(zlib.compress(npy(), wbits=-15), npy(), size=len(npy()) + 1),
        zip_of(zlib.compress(npy()[:-1], wbits=-15), npy()),
        zip_of(zlib.compress(npy() + b"1", wbits=-15)[:-9], npy()),
        zip_of(zlib.compress(npy(VOXELS + 1), wbits=-15), npy()),
        zip_of(b"\x5d\0\0\0\xff" + npy(), npy(), method=14),
        zip_of(npy(), npy(), method=12),
        zip_of(npy(), npy(), method=8),
        zip_of(npy(), npy(), method=0, flags=1),
        zip_of(npy(), npy(), method=0, members=2),
        zip_of(npy(), npy(), method=0, members=0),
    ],
    ids=range(11),
)
def test_a_zip_with_false_claims_is_refused(folder, content):
    with little_memory(ENOUGH_BYTES + len(content)):
        assert read(written(folder / "lie.npz", content)) is None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_a_file_that_is_too_large_is_refused_before_reading(folder, suffix):
    path = written(folder / f"huge{suffix}", SAMPLES["c.npy"])
    os.truncate(path, 2 * MAX_VOLUME_BYTES)
    with little_memory():
        assert read(path) is None


def test_too_little_memory_is_an_error_that_names_the_volume(folder):
    """The address space is enough for half of the volume."""
    size = 512 << 20
    npy_start = npy_of(npy_header("(1024, 1024, 256)"), b"")
    nifti_start = nifti(dim=[3, 1024, 1024, 256, 1, 1, 1, 1])[:352]
    paths = [folder / "large.npy", folder / "large.nii", folder / "large.nii.gz"]
    for path, start in zip(paths, (npy_start, nifti_start, nifti_start), strict=True):
        if path.suffix == ".gz":
            path.write_bytes(GZIP_HEADER + bomb(start, size >> 20))
        else:
            path.write_bytes(start)
            os.truncate(path, len(start) + size)
        code = f"""
import resource
from pathlib import Path
from sam_lungs.utils.errors import InputError
from sam_lungs.data.readers import read_volume
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {size // 2}, -1))
try:
    read_volume(Path({str(path)!r}))
except InputError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{path}: too little memory to read it")


@pytest.mark.parametrize("name", ["c.npy", "nifti1little.nii"])
def test_reading_needs_the_memory_of_one_volume(folder, name):
    voxels = np.zeros((64, 512, 512), np.int16)
    content = npy(voxels) if name.endswith(".npy") else nifti(voxels=voxels)
    path = written(folder / f"large_{name}", content)
    # A NIfTI file of zeros is also copied to uint8, which takes half as much.
    with little_memory(len(content) * 1.6):
        assert read(path).array.shape in ((64, 512, 512), (512, 64, 512))


class Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_no_pickle_is_loaded(folder, tmp_path):
    trace = tmp_path / "ran"
    objects = np.array([Runs(trace)] * 60, dtype=object).reshape(3, 4, 5)
    pickled = pickle.dumps(Runs(trace))
    for name, content in {
        "objects.npy": npy(objects, allow_pickle=True),
        "objects.npz": npz(np.savez, objects),
        "pickle.npy": pickled,
        "pickle.npz": pickled,
        "inside.npz": zip_of(pickled, pickled, method=0),
        "behind.npy": npy_of(npy_header("(3, 4, 5)", "'|O'"), pickled),
        "behind_numbers.npy": npy() + pickled,
    }.items():
        assert read(written(folder / name, content)) is None
        with pytest.raises(InputError, match="real numbers" if "objects" in name else name):
            read_volume(folder / name)
    assert not trace.exists()


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz", ".npy.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing"])
def test_a_path_that_is_not_a_regular_file_is_refused_at_once(tmp_path, kind, suffix, linked):
    path = tmp_path / f"image{suffix}"
    made = tmp_path / "elsewhere" if linked or kind == "device" else path
    if kind == "pipe":
        os.mkfifo(made)
    elif kind == "folder":
        made.mkdir()
    elif kind == "device":
        made = "/dev/zero"
    if made != path:
        path.symlink_to(made)
    volume = written(tmp_path / "image.npy", npy()) if suffix == ".npy.json" else path
    if suffix == ".npy.json" and kind == "nothing":
        assert read(volume) is not None
    else:
        assert read(volume) is None


def test_a_link_to_a_volume_is_read(tmp_path, folder):
    for name, content in SAMPLES.items():
        (tmp_path / name).symlink_to(written(folder / name, content))
        assert read(tmp_path / name) is not None


# Valid files of every kind

KINDS = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")
SHAPES = st.tuples(*[st.integers(1, 5)] * 3)
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(np.repeat(array, 2, 0), 3, 2)[::2, :, ::3],
    "backwards": lambda array: np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "transposed": lambda array: np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0),
    "broadcast": lambda array: np.broadcast_to(array[:, :1], array.shape),
}


def voxels_of(kinds):
    dtypes = st.builds(
        lambda endianness, kind: np.dtype(endianness + kind),
        st.sampled_from("<>"),
        st.sampled_from(kinds),
    )
    return dtypes.flatmap(lambda dtype: arrays(dtype, SHAPES))


def is_finite(values: np.ndarray) -> bool:
    """Return whether all values are finite as float32."""
    return all(abs(float(value)) <= float(np.finfo(np.float32).max) for value in values.flat)


@given(voxels_of(KINDS), st.sampled_from(sorted(LAYOUTS)), st.sampled_from([".npy", ".npz"]))
def test_arrays_of_any_kind_are_read_as_they_were_written(folder, array, layout, suffix):
    array = LAYOUTS[layout](array)
    path = folder / f"any{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        np.savez(path, array)
    volume = read(path)
    assert (volume is not None) == is_finite(array)
    if volume:
        assert volume.array.dtype == array.dtype
        is_one_slice = array.shape[0] == 1 < min(array.shape[1:])
        expected = array.transpose(1, 2, 0) if is_one_slice else array
        np.testing.assert_array_equal(volume.array, expected)

        written_path = folder / f"converted{suffix}"
        write_numpy(Volume(array, None, path), written_path)
        again = read(written_path)
        assert again.array.dtype == array.dtype
        assert again.array.flags.f_contiguous
        np.testing.assert_array_equal(again.array, array)


def affine_towards(codes: str, spacing_mm) -> np.ndarray:
    """Return an affine whose file axes grow towards `codes`, in numbers that float32 holds."""
    affine = np.diag([0, 0, 0, 1.0])
    for axis, (code, size) in enumerate(zip(codes, spacing_mm, strict=True)):
        row = next(row for row, ends in enumerate(("LR", "PA", "IS")) if code in ends)
        affine[row, axis] = size if code in "RAS" else -size
    affine[:3, 3] = -17, 4.5, 256
    return affine


def turned(stored: np.ndarray, codes: str, orientation: str) -> np.ndarray:
    """Turn the axes of a file without nibabel."""
    if orientation == "paper":
        return stored.transpose(1, 0, 2)
    wanted = "PLS"
    ends = ("PA", "LR", "IS")
    order = [next(axis for axis, code in enumerate(codes) if code in pair) for pair in ends]
    steps = [1 if codes[axis] == code else -1 for axis, code in zip(order, wanted, strict=True)]
    return stored.transpose(order)[tuple(slice(None, None, step) for step in steps)]


def scaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Scale the values as the NIfTI standard says."""
    if slope == 0 or not np.isfinite(slope):
        return stored
    if (slope, intercept) == (1, 0):
        return stored
    values = [float(value) * slope + intercept for value in stored.flat]
    return np.array(values).reshape(stored.shape)


def dtype_of(values: np.ndarray) -> type:
    numbers = [value.item() for value in values.flat]
    if all(number == int(number) for number in numbers):
        for dtype in (np.uint8, np.int16, np.int32):
            limits = np.iinfo(dtype)
            if all(limits.min <= number <= limits.max for number in numbers):
                return dtype
    return np.float32


@given(
    stored=voxels_of([kind for kind in KINDS if kind not in ("b1", "f2")]),
    version=st.sampled_from([1, 2]),
    slope=st.sampled_from([0, 1, 1, -1, 2, 0.5, np.nan, np.inf]) | st.floats(width=32),
    intercept=st.sampled_from([0, 0, -1024, 0.25, np.nan]) | st.floats(width=32),
    codes=st.sampled_from(ALL_ORIENTATIONS),
    spacing_mm=st.tuples(*[st.integers(1, 64).map(lambda eighths: eighths / 8)] * 3),
    orientation=st.sampled_from(["paper", "radiological"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_nifti_of_any_kind_is_read_and_masks_are_written_on_its_grid(
    folder, stored, version, slope, intercept, codes, spacing_mm, orientation, suffix
):
    affine = affine_towards(codes, spacing_mm)
    endianness = ">" if stored.dtype.str[0] == ">" else "<"
    content = nifti(version, endianness, stored, affine, scl_slope=slope, scl_inter=intercept)
    if suffix == ".nii.gz":
        content = gzip.compress(content, 1)
    volume = read(written(folder / f"any{suffix}", content), orientation)
    with np.errstate(all="ignore"):
        expected = scaled(stored, slope, intercept)
        # A slope without an intercept makes these NaN or infinite, too.
        if not is_finite(expected):
            assert volume is None
            return
        dtype = dtype_of(expected)
        expected = turned(expected.astype(dtype), codes, orientation)
    assert volume is not None
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, expected)
    np.testing.assert_array_equal(volume.geometry.affine, affine)

    mask = volume.array > volume.array[0, 0, 0]
    write_nifti(mask, volume.geometry, folder / "mask.nii")
    back = nib.load(folder / "mask.nii")
    np.testing.assert_array_equal(back.affine, affine)
    np.testing.assert_array_equal(
        turned(np.asarray(back.dataobj), codes, orientation), mask.astype(np.uint8)
    )


AFFINES = st.sampled_from(
    [
        st.integers(-9, 9),
        st.floats(-1e3, 1e3),
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(),
    ]
).flatmap(lambda numbers: arrays(np.float64, (4, 4), elements=numbers, fill=st.nothing()))


@given(AFFINES, st.sampled_from([1, 2]))
def test_any_affine_turns_exactly_or_is_ignored(folder, numbers, version):
    affine = np.vstack([numbers[:3], [0, 0, 0, 1]])
    with np.errstate(all="ignore"):
        in_single = affine.astype(np.float32)
    if version == 1:
        affine = in_single
    path = written(folder / "affine.nii", nifti(version, affine=affine))
    volume = read(path)
    np.testing.assert_array_equal(volume.array, VOXELS.transpose(1, 0, 2))
    turned = read(path, "radiological")
    assert (turned is not None) == bool(volume.geometry)
    if turned is None:
        return
    write_nifti(turned.array, turned.geometry, folder / "back.nii")
    back = nib.load(folder / "back.nii")
    np.testing.assert_array_equal(back.dataobj, VOXELS)
    np.testing.assert_array_equal(back.affine, affine)
    assert all(size > 0 for size in turned.geometry.spacing_mm)
    assert sorted(orientations.axcodes2ornt(turned.geometry.orientation)[:, 0]) == [0, 1, 2]
