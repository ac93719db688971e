"""Read the prompts of a slice from YAML, as `results.write_prompts` writes it."""

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from sam_lungs.data.names import case_name
from sam_lungs.study.drawn import Drawn, SlicePrompts, assemble, draw_box
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import read_text

CORNERS = ("row_min", "column_min", "row_max", "column_max")


class _Mapping(dict):
    """A mapping of a YAML file. where: its file and line."""

    where = ""


def read_yaml(path: Path, names: Mapping[str, str]) -> tuple[str, int, SlicePrompts]:
    """Read the prompts of one slice: the name of its case, its index, and the prompts.

    names: see `prompts_file.read_prompts`.

    Raises `InputError` with file and line for anything that is not such a file.
    """
    content = _load(path)
    in_object = ("objects",) if "objects" in content else ("points", "box")
    _check_keys(content, ("image", "slice", *in_object[:1]), ("masks", *in_object))
    image, index = content["image"], content["slice"]
    if type(image) is not str or not image:
        raise InputError(f"{content.where}: image is {image!r}; write the path of the image")
    _check_integers(content, ("slice",))
    objects = content.get("objects", [content])
    if not (isinstance(objects, list) and objects):
        raise InputError(f"{content.where}: objects has no list; write points and box for each")
    drawn = []
    for each in objects:
        if each is not content:
            _check_keys(each, ("points",), ("box",), content.where)
        drawn.append(_of_object(each))
    try:
        case = names[image] if image in names else case_name(Path(image))
    except InputError as error:
        raise InputError(f"{content.where}: image {error}") from error
    return case, index, assemble(drawn, {})


def _of_object(content: _Mapping) -> list[Drawn]:
    """Return what is drawn for an object from its keys `points` and `box`."""
    points, box = content["points"], content.get("box")
    if not isinstance(points, list):
        raise InputError(f"{content.where}: points is no list; write a list, or []")
    drawn = []
    for point in points:
        _check_keys(point, ("row", "column", "label"), (), content.where)
        _check_integers(point, ("row", "column", "label"))
        if point["label"] not in (0, 1):
            raise InputError(f"{point.where}: label is {point['label']}; 1 is positive, 0 negative")
        kind = "positive" if point["label"] else "negative"
        drawn.append(Drawn(point.where, kind, (point["row"], point["column"])))
    if box is not None:
        _check_keys(box, CORNERS, (), content.where)
        _check_integers(box, CORNERS)
        drawn.append(draw_box(box.where, tuple(box[name] for name in CORNERS)))
    if not drawn:
        raise InputError(f"{content.where}: has neither points nor a box; write one of them")
    return drawn


def _check_keys(
    content: object, required: Collection[str], optional: Collection[str], around: str = ""
) -> None:
    """Raise `InputError` unless content is a mapping with these keys. around: where it is."""
    keys = ", ".join((*required, *optional))
    if not isinstance(content, _Mapping):
        raise InputError(f"{around}: {content!r:.40} is in place of the keys {keys}; write these")
    for name in content:
        if name not in required and name not in optional:
            raise InputError(f"{content.where}: unknown key {name!r}; there are {keys}")
    for name in required:
        if name not in content:
            raise InputError(f"{content.where}: has no {name}; the keys are {keys}")


def _check_integers(content: _Mapping, names: Collection[str]) -> None:
    for name in names:
        if type(content[name]) is not int or abs(content[name]) >= 10**9:
            raise InputError(f"{content.where}: {name} is {content[name]!r}; write an integer")


def _load(path: Path) -> _Mapping:
    """Return the content of a YAML file, with the line of each mapping."""

    def construct(loader: yaml.SafeLoader, node: yaml.MappingNode) -> _Mapping:
        mapping = _Mapping(loader.construct_mapping(node, deep=True))
        mapping.where = f"{path}, line {node.start_mark.line + 1}"
        if len(mapping) < len(node.value):
            raise InputError(f"{mapping.where}: a key is there twice; remove one")
        return mapping

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct)
    text = read_text(path)
    try:
        content = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is not YAML ({reason}); write it as --debug does") from error
    if not isinstance(content, _Mapping):
        raise InputError(f"{path}: is not a file of prompts; give a .csv or slice_N_prompt.yml")
    return content
