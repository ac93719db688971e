from sam_lungs.summary.figure_3 import draw_figure_3
from sam_lungs.summary.published import published_slices


def test_the_boxes_are_the_quartiles_of_each_half():
    slices = published_slices()
    figure = draw_figure_3({"published": slices, "here": slices[slices["image"].str[0] == "c"]})
    panels = dict(zip(("jaccard", "jaccard here", "dice", "dice here"), figure.axes, strict=True))
    for name, boxes in (("dice", 3), ("dice here", 2)):
        assert len(panels[name].patches) == boxes
        labels = [label.get_text() for label in panels[name].get_xticklabels()]
        assert labels[0].startswith("all\nn = ")
    corona = slices[slices["image"].str.startswith("coronacases_")]["dice"]
    edges = panels["dice"].patches[1].get_path().vertices[:, 1]
    assert [edges.min(), edges.max()] == corona.quantile([0.25, 0.75]).tolist()
    assert panels["dice"].get_xticklabels()[2].get_text() == "radiopaedia\nn = 817"
