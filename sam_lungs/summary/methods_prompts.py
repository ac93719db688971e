"""A run record -> clauses about its prompts."""

from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.methods_facts import is_elsewhere, missing
from sam_lungs.summary.methods_wording import References, code, count, listed

FILE = "prompts_file"  # in the protocol of prompts of a file
POINTS = {
    "inside": "each label got one positive point: its centroid, moved into the label if it lies"
    " outside, and then to the middle of the label's pixels in that row or column",
    "centroid": "each label got one positive point: its centroid, even if it lies outside",
    "contours": "each connected region of a label, holes filled, got one positive point: its"
    " centroid, moved into the label if it lies outside, and then to the middle of the label's"
    " pixels in that row or column",
    "contours_centroid": "each connected region of a label, holes filled, got one positive point:"
    " its centroid, even if it lies outside",
    "none": "there was no positive point",
}


def prompts(record: RunRecord, references: References) -> str:
    """Say where prompts come from, and whether objects were prompted together."""
    if is_elsewhere(record):
        return "the predicted masks were made elsewhere; how they were prompted is not recorded"
    if not record.protocol:
        return missing("the prompt protocol")
    if file := record.protocol.get(FILE):
        return (
            f"the prompts were read from {code(file)}, and only slices with prompts there were"
            " segmented; who drew them is not recorded"
        )
    text = "the prompts of a slice were derived from its reference mask and not drawn by a user"
    text += references.cite("paper")
    objects = {
        "together": "all labels of a slice were prompted together, for one mask",
        "apart": "each label was prompted apart, and the predicted masks were united",
    }
    unknown = missing("whether labels were prompted together or apart")
    return f"{text}; {objects.get(record.options.get('objects'), unknown)}"


def points(record: RunRecord) -> str:
    """Say the positive points."""
    if not _has_rules(record):
        return ""
    return POINTS.get(record.protocol.get("points"), missing("the choice of positive points"))


def negative_points(record: RunRecord) -> str:
    """Say the negative points."""
    if not _has_rules(record):
        return ""
    negative = record.protocol.get("negative")
    if negative is None:
        return missing("the choice of negative points")
    if negative == "none":
        return "there was no negative point"
    if not isinstance(negative, str):
        pixels = listed(f"({row}, {column})" for row, column in negative)
        return f"each slice got negative points at its (row, column) {pixels}"
    centre = "the slice" if negative == "slice_center" else f"the bounding box of {_who(record)}"
    text = f"there was one negative point at the centre of {centre}"
    if rows := record.protocol.get("negative_offset_rows"):
        text += f", moved {'down' if rows > 0 else 'up'} by {count(abs(rows), 'row')} but not"
        text += " beyond the border"
    return text


def box(record: RunRecord) -> str:
    """Say whether a box was given."""
    if not _has_rules(record):
        return ""
    if record.protocol.get("box") is None:
        return missing("whether a box was given")
    return f"the bounding box of {_who(record)} was {'' if record.protocol['box'] else 'not '}given"


def every(record: RunRecord) -> str:
    """Say the slices in which prompts are drawn, if these are not all."""
    if _step(record) == 1:
        return ""
    return (
        "prompts were drawn only in the first slice of an object, in every K-th of its slices after"
        f" it (K = {_step(record)}) and in its last one, and linearly interpolated in all slices"
        " between these"
    )


def empty_slices(record: RunRecord) -> str:
    """Say what happens to slices without prompts of their own."""
    if is_elsewhere(record) or FILE in record.protocol:
        return ""
    slices = "lung" if _step(record) == 1 else "prompts of their own"
    return {
        "skip": f"slices without {slices} were not segmented",
        "nearest": f"slices without {slices} got the prompts of the nearest slice that has some;"
        " slices without lung are in no mean over slices",
    }.get(record.options.get("empty_slices"), missing(f"the treatment of slices without {slices}"))


def _has_rules(record: RunRecord) -> bool:
    return bool(record.protocol) and FILE not in record.protocol


def _step(record: RunRecord) -> int:
    return record.protocol.get("every", 1)


def _who(record: RunRecord) -> str:
    objects = record.options.get("objects")
    return {"together": "all labels", "apart": "each label"}.get(objects, "the labels")
