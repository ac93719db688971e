"""The options of `explore_prompts.py`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol
from sam_lungs.study import options as study_options
from sam_lungs.study.input_options import parse_names
from sam_lungs.study.metrics import METRICS
from sam_lungs.study.options import LAYERS, OBJECTS, Options, parse_count
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError

KINDS = ("map", "negative_map", "jitter", "points", "clicks", "best")
MAPS = ("map", "negative_map")
RULES = ("random", "spread")  # of `prompts.sampling.RULES`
# The kinds that an option is for.
OF_KINDS = {
    "step_pixels": MAPS,
    "alone": ("map",),
    "margin_pixels": (*MAPS, "points", "best"),
    "sigma_mm": ("jitter",),
    "repeats": ("jitter", "points"),
    "points_per_object": ("points",),
    "rule": ("points",),
    "clicks": ("clicks",),
    "targets": ("clicks",),
    "mask_prompts": ("clicks",),
    "budget": ("best",),
    "most_points": ("best",),
    "debug": MAPS,
}


def parse_numbers(text: str) -> tuple[float, ...]:
    """Parse different numbers separated by commas, each at least 0; return them in order."""
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?(,\d{1,4}(\.\d{1,3})?)*", text):
        raise InputError("give numbers separated by commas, such as 1,2.5,10")
    numbers = tuple(sorted(float(number) for number in text.split(",")))
    if len(set(numbers)) < len(numbers):
        raise InputError("a number is given twice; give each once")
    return numbers


def parse_targets(text: str) -> tuple[float, ...]:
    """Parse Dice scores separated by commas; return them in order."""
    targets = parse_numbers(text)
    if not 0 < targets[0] <= targets[-1] <= 1:
        raise InputError("give Dice scores above 0 and at most 1, such as 0.85,0.9")
    return targets


def parse_range(text: str) -> tuple[int, ...]:
    """Parse integers separated by commas, or the first and the last one as `1..10`."""
    if ".." in text:
        first, _, last = text.partition("..")
        counts = tuple(range(parse_count(first), parse_count(last) + 1))
    else:
        counts = tuple(sorted({parse_count(number) for number in text.split(",")}))
    if not counts:
        raise InputError("the last number is smaller than the first; swap them")
    return counts


def parse_margin(text: str) -> int:
    """Parse an integer, at least 0."""
    return 0 if text == "0" else parse_count(text)


def parse_rules(text: str) -> tuple[str, ...]:
    """Parse rules separated by commas; return them in a fixed order."""
    names = parse_names(text)
    for name in names:
        if name not in RULES:
            raise InputError(f"unknown rule {name!r}; the rules are {', '.join(RULES)}")
    return tuple(name for name in RULES if name in names)


@dataclass(frozen=True)
class ExploreOptions(Options):
    """The options of `explore_prompts.py`: those of a study that apply, and those of the kinds."""

    # Of a study only. With ClassVar they are no options here.
    draw: ClassVar = LAYERS
    save_masks: ClassVar = False
    report: ClassVar = False
    dry_run: ClassVar = False
    batch_size: ClassVar = None
    prompt_every: ClassVar = (1,)
    prompts_file: ClassVar = None
    metrics: ClassVar = METRICS
    tolerance_mm: ClassVar = (1.0,)
    empty_slices: ClassVar = "skip"

    debug: bool = option("with --slice draw the map", False, "output", "-d", decides=True)
    # `__post_init__` sets the default.
    objects: str | None = option(
        "prompt all labels together, as the paper does, or each apart",
        None,
        "prompts",
        choices=OBJECTS,
        shown_default="apart for clicks, else together",
        decides=True,
    )

    kind: Sequence[str] = option(
        "what to explore, the first argument",
        (),
        "exploration",
        positional=True,
        choices=KINDS,
        shown_default="required",
        decides=True,
    )
    step_pixels: int = option(
        "map, negative_map: distance between clicks",
        8,
        "exploration",
        parse=parse_count,
        decides=True,
        metavar="N",
    )
    margin_pixels: int = option(
        "how far clicks of maps, and negative points of points and best, lie outside the box",
        16,
        "exploration",
        parse=parse_margin,
        decides=True,
        metavar="N",
    )
    alone: bool = option(
        "map: the click alone, without the other prompts", False, "exploration", decides=True
    )
    sigma_mm: tuple[float, ...] = option(
        "jitter: standard deviations of the points and the edges of the box",
        (1.0, 2.0, 5.0, 10.0),
        "exploration",
        parse=parse_numbers,
        metavar="MM,MM",
        shown_default="1,2,5,10",
        decides=True,
    )
    repeats: int = option(
        "jitter and random points: how often a slice is prompted",
        20,
        "exploration",
        parse=parse_count,
        decides=True,
        metavar="N",
    )
    points_per_object: tuple[int, ...] = option(
        "points: numbers of positive points for each object, and of negative ones",
        tuple(range(1, 11)),
        "exploration",
        parse=parse_range,
        metavar="N..N",
        shown_default="1..10",
        decides=True,
    )
    rule: tuple[str, ...] = option(
        f"points: how they are sampled, {', '.join(RULES)}",
        RULES,
        "exploration",
        parse=parse_rules,
        metavar="NAME,NAME",
        shown_default=",".join(RULES),
        decides=True,
    )
    clicks: int = option(
        "clicks: number of clicks, the first prompt is one",
        10,
        "exploration",
        parse=parse_count,
        decides=True,
        metavar="N",
    )
    targets: tuple[float, ...] = option(
        "clicks: Dice scores to reach",
        (0.85, 0.9, 0.95),
        "exploration",
        parse=parse_targets,
        metavar="DICE,DICE",
        shown_default="0.85,0.9,0.95",
        decides=True,
    )
    mask_prompts: bool = option(
        "clicks: also give the logits of the last mask, as SAM's authors do; compact was not"
        " trained with them",
        True,
        "exploration",
        decides=True,
    )
    budget: int = option(
        "best: decodes for each slice and object",
        512,
        "exploration",
        parse=parse_count,
        decides=True,
        metavar="N",
    )
    most_points: int = option(
        "best: most positive points for each object, and most negative ones",
        3,
        "exploration",
        parse=parse_count,
        decides=True,
        metavar="N",
    )

    def __post_init__(self) -> None:
        """Raise `InputError` for options that would have no effect in their combination."""
        kinds = [self.kind] if isinstance(self.kind, str) else self.kind
        if len(kinds) != 1:
            raise InputError(f"give first what to explore, one of {', '.join(KINDS)}")
        object.__setattr__(self, "kind", kinds[0])
        super().__post_init__()
        for each in fields(self):
            is_given = getattr(self, each.name) != each.default
            if is_given and self.kind not in OF_KINDS.get(each.name, KINDS):
                raise InputError(f"--{each.name} has no effect with {self.kind}; leave it out")
        if (
            self.kind == "points"
            and self.rule == ("spread",)
            and self.repeats != type(self).repeats
        ):
            raise InputError("--repeats has no effect with --rule spread; leave it out")
        if self.debug and self.slice is None:
            raise InputError("--debug has no effect, because all maps are drawn; leave it out")
        if self.kind == "points" and (self.prompts or self._own_protocol != PROTOCOLS["paper"]):
            raise InputError("points samples its own prompts; leave the prompt options out")
        used = [self._used(each) for each in self.protocols.values()]
        if len(set(used)) < len(used):
            raise InputError(
                f"several --prompts give the same with {self.kind}, which replaces what differs in"
                " them; leave one out"
            )
        paper = PROTOCOLS["paper"]
        if self._own_protocol != paper and self._used(self._own_protocol) == self._used(paper):
            raise InputError(
                f"{self.kind} replaces what these prompt options change; leave them out"
            )
        if self.objects is None:
            object.__setattr__(self, "objects", "apart" if self.kind == "clicks" else "together")

    def _used(self, protocol: PromptProtocol) -> PromptProtocol:
        """Return a protocol with the paper's values for all that the exploration replaces."""
        paper = PROTOCOLS["paper"]
        if self.kind == "clicks" and protocol.points != "none":
            return replace(paper, points=protocol.points)
        if self.kind == "clicks":
            return PROTOCOLS["box_only"]
        if self.alone:
            return paper
        if self.kind == "map":
            return replace(protocol, points=paper.points)
        if self.kind == "negative_map":
            return replace(protocol, negative=paper.negative, negative_offset_rows=0)
        return protocol

    def for_each_model(self) -> "list[ExploreOptions]":
        """Return the options of each model alone, see `Options.for_each_model`."""
        if len(self.models) == 1:
            return [self]
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return [_OneOfSeveral(**values | {"model": model}) for model in self.models]


class _OneOfSeveral(study_options._OneOfSeveral, ExploreOptions):
    """The options of one of several models."""
