"""Explore the cases of a study: `study.run` with other work for each case."""

from pathlib import Path

from sam_lungs.data.case import Case, Finding
from sam_lungs.segmenters import registry
from sam_lungs.study.explore.kinds import KINDS
from sam_lungs.study.explore.layout import exploration_folder
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.explore.volume import explore_case, explore_slice
from sam_lungs.study.process import findings
from sam_lungs.study.run import Work, run_study
from sam_lungs.utils.errors import InputError


def explore_study(options: ExploreOptions) -> int:
    """Explore the cases with each model; skip finished ones, resume unfinished ones.

    Returns the exit status, and raises, as `run_study`. Raises `InputError` too when a model cannot
    be prompted as the exploration does.
    """
    for one in options.for_each_model():
        _check_model(one)

    def folder(study_folder: Path, protocol: str, name: str) -> Path:
        return exploration_folder(study_folder, options.kind, protocol, name)

    return run_study(options, Work(folder, _findings, explore_case, explore_slice))


def _check_model(options: ExploreOptions) -> None:
    """Raise `InputError` when a model does not accept the prompts, or they have no effect."""
    needed = KINDS[options.kind].prompts
    name = options.model or options.model_folder
    if options.model == "box" and needed:
        raise InputError(f"box: points have no effect on it, so {options.kind} needs another model")
    if options.model == "threshold" and options.kind == "negative_map":
        raise InputError(
            "threshold: negative points have no effect on it, so negative_map needs another model"
        )
    accepted = registry.check_model(options.model, options.checkpoint, options.model_folder)
    if refused := [each for each in needed if each not in accepted]:
        raise InputError(
            f"{name}: does not accept {' and '.join(refused)} prompts, which {options.kind} needs;"
            " use jitter with --prompts box_only"
        )


def _findings(case: Case, options: ExploreOptions) -> list[Finding]:
    """Return every finding about a case, also about its exploration."""
    found = findings(case, options)
    if options.kind == "jitter" and case.image and case.image.geometry is None:
        message = f"{case.files.path}: jitter needs the size of its pixels; give --spacing_mm"
        found.append(Finding("spacing", message, is_fault=True))
    objects = case.files.reading.objects or {}
    if "all" in objects and len(objects) > 1:
        message = f"{case.files.path}: an object is named all, which means all together; rename it"
        found.append(Finding("name", message, is_fault=True))
    return found
