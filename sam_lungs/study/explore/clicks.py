"""Dice after each click of a simulated interactive user, see `prompts.clicks`."""

import pandas as pd

from sam_lungs.prompts.clicks import Click, add_click, first_prompt, next_click
from sam_lungs.study.explore.engine import ExploredSlice, Target, columns_of
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.metrics import overlap

COLUMNS = ("clicks", "row", "column", "label")


def explore(of_slice: ExploredSlice, options: ExploreOptions) -> list[dict]:
    """Return a table for each target.

    It ends early when no pixel is left to click: the mask is the reference, or all its wrong pixels
    were clicked.
    """
    return [_click(of_slice, target, options) for target in of_slice.targets]


def summarize(values: pd.DataFrame, options: ExploreOptions) -> list[tuple]:
    """Return rows (quantity, object, value), see `docs/exploring.md`."""
    rows = []
    for name, of_object in values.groupby("object", sort=False):
        dice = of_object.pivot(index="slice", columns="clicks", values="dice")
        # Without a pixel to click the mask stays as it is.
        dice = dice.reindex(columns=range(1, options.clicks + 1)).ffill(axis=1)
        means = dice.mean()
        rows += [(f"mean_dice_click_{count}", name, mean) for count, mean in means.items()]
        middles = (means[:-1].array + means[1:].array) / 2
        area = middles.mean() if options.clicks > 1 else means.iloc[0]
        rows.append(("area_under_curve", name, area))
        rows.append(("final_dice", name, means.iloc[-1]))
        for target in options.targets:
            reached = (dice >= target).any(axis=1)
            needed = 1 + (dice >= target).to_numpy().argmax(axis=1)
            rows.append(
                (f"mean_clicks_to_{target:g}", name, pd.Series(needed)[reached.array].mean())
            )
            rows.append((f"reached_{target:g}", name, int(reached.sum())))
            rows.append((f"never_{target:g}", name, int((~reached).sum())))
    return rows


def _click(of_slice: ExploredSlice, target: Target, options: ExploreOptions) -> dict:
    """Return the table of one target."""
    prompts, mask_logits = first_prompt(target.prompts), None
    clicked = [Click(tuple(point), 1) for point in prompts.points_rc.tolist()]
    overlaps = []
    for _ in range(options.clicks):
        decoded = of_slice.decode([prompts], mask_logits)
        mask = decoded.masks[0].cpu().numpy()
        mask_logits = decoded.mask_logits if options.mask_prompts else None
        overlaps.append(overlap(mask, target.reference))
        click = next_click(target.reference, mask, prompts.points_rc)
        if click is None:
            break
        clicked.append(click)
        prompts = add_click(prompts, click)
    # The box, if it is the first prompt, has no row, column and label.
    count = len(overlaps)
    given = [[None] * 3] * (target.prompts.box_rc is not None and 1 not in target.prompts.labels)
    given += [[*click.point_rc, click.label] for click in clicked]
    rows, columns, labels = zip(*given[:count], strict=True)
    return {
        "object": target.name,
        "clicks": list(range(1, count + 1)),
        "row": list(rows),
        "column": list(columns),
        "label": list(labels),
        **columns_of(overlaps),
    }
