"""Options of a script from a YAML file, for `--config`; docs/running.md describes the file."""

import os
import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import get_args, get_type_hints

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import read_text
from sam_lungs.utils.parser import nearest_option, takes_several


def config_words(path: Path, options_class: type) -> Iterator[list[str]]:
    """Yield the command-line words of each option that a YAML file sets.

    options_class: see `cli.parse_options`. A key of the file is the name of an option. Its value is
    true or false for a switch, otherwise text or a number. A list is several values; where the
    option takes them with commas, and in a list within a list, it is joined with commas. Where the
    option takes several values, a text is split at spaces, unless it is a path. A mapping is
    several `key=value`. An option that is null keeps its default. Relative paths are relative to
    the folder of the file.

    Raises `InputError` when the file cannot be read or has no keys, for a key that is unknown or
    given twice, and for a value of another type. Values are parsed by the caller.
    """
    known = {each.name: each for each in fields(options_class)}
    hints = get_type_hints(options_class)
    seen = set()
    for key, value in _read(path).items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InputError(f"{path}: unknown option {key}; {_hint(name, known)}")
        if name in seen:
            raise InputError(f"{path}: {name} is given twice; leave one out")
        seen.add(name)
        if value is not None:
            try:
                yield _words(known[name], hints[name], value, path.parent)
            except InputError as error:
                raise InputError(f"{path}: {name}: {error}") from None


def _read(path: Path) -> dict:
    """Return the keys and values of a YAML file."""
    import yaml  # --help does not need it

    class Loader(yaml.SafeLoader):
        """Reads text as it is written, but for null, true and false.

        YAML would read 010 as 8, 1:30 as 90, and `on` as true.
        """

        yaml_implicit_resolvers = {}  # noqa: RUF012  of the base class

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise InputError(f"{path}: {twice[0]} is given twice; leave one out")
            return super().construct_mapping(node, deep=True)

    for tag, words in (("null", "~|null|"), ("bool", "true|false")):
        pattern = re.compile(f"({words})$", re.IGNORECASE)
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, None)
    try:
        content = yaml.load(read_text(path), Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: is not YAML ({reason}); put texts that it cannot read between quotes, and use"
            " spaces in place of tabs"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: has no `option: value` lines; docs/running.md has an example")
    return content


def _hint(name: str, known: dict[str, Field]) -> str:
    switch = name.removeprefix("no_")
    if switch in known and isinstance(known[switch].default, bool):
        return f"write {switch}: false"
    if "dataset" in known and name in ("images", "masks", "table", "root"):
        return "a dataset file is another file; give it with --dataset"
    return nearest_option(name, known)


def _words(each: Field, hint: object, value: object, folder: Path) -> list[str]:
    if isinstance(each.default, bool):
        if not isinstance(value, bool):
            raise InputError("is a switch; write true or false")
        return [f"--{each.name}" if value else f"--no_{each.name}"]
    types = (hint, *get_args(hint))
    is_path = Path in types
    several = takes_several(hint)
    if not several:
        value = [value]
    elif isinstance(value, dict) and not is_path:
        value = [f"{name}={_text(labels, ',')}" for name, labels in value.items()]
    elif isinstance(value, str) and not is_path:
        value = re.sub(r"\s*,\s*", ",", value).split()  # as on a command line
    elif not isinstance(value, list):
        value = [value]
    separator = "," if (several or each.metadata["parse"]) and not is_path else None
    texts = [_text(one, separator) for one in value]
    if is_path:
        paths = [os.path.normpath(folder / os.path.expanduser(text)) for text in texts]
        # An option that takes a path or another text has a path if the file is there.
        texts = [
            text if str in types and not os.path.isfile(path) else path
            for text, path in zip(texts, paths, strict=True)
        ]
    if each.metadata["positional"]:
        return texts
    # With "=", a value may begin with a minus sign.
    return [f"--{each.name}", *texts] if several else [f"--{each.name}={texts[0]}"]


def _text(value: object, separator: str | None) -> str:
    """Return a value as text; a list only with a separator."""
    if isinstance(value, list) and separator:
        return separator.join(_text(one, None) for one in value)
    if isinstance(value, bool):
        raise InputError(f"takes text; if {str(value).lower()} is meant, put it between quotes")
    if not isinstance(value, str):
        raise InputError("takes no lists, mappings or nulls in this place; give one text or number")
    return value
