"""Prompts of one's own: what is written is read, and each mistake is one line with its place."""

import csv
import io
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.volume import VolumePrompts
from sam_lungs.study.drawn import KINDS
from sam_lungs.study.prompts_file import find_misplaced, read_prompts
from sam_lungs.study.results import write_prompts
from sam_lungs.utils.errors import InputError

# Fewer examples, because each writes a file.
with_files = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings.default.max_examples // 5,
)
COLUMNS = ["case", "slice", "kind", "row", "column", "row2", "column2"]


def same(first: list[Prompts], second: list[Prompts]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for one, other in zip(first, second, strict=True)
        for field in fields(Prompts)
    )


@st.composite
def objects(draw) -> Prompts:
    """Return prompts of 0 to 4 points and a box or none, but not nothing."""
    pixels = st.tuples(st.integers(0, 600), st.integers(0, 600))
    box_rc = None
    if draw(st.booleans()):
        (top, left), (height, width) = draw(pixels), draw(pixels)
        box_rc = np.array([top, left, top + height + 1, left + width + 1])
    points = draw(st.lists(pixels, min_size=int(box_rc is None), max_size=4))
    labels = draw(st.lists(st.integers(0, 1), min_size=len(points), max_size=len(points)))
    points_rc = np.array(points, dtype=np.int64).reshape(-1, 2)
    return Prompts(points_rc, np.array(labels, dtype=np.int64), box_rc)


several_objects = st.lists(objects(), min_size=1, max_size=3)


def yaml_file(path: Path, prompts: list[Prompts], image: str = "ct_1.nii.gz", index: int = 4):
    write_prompts(path, {"image": image, "masks": "masks.nii.gz", "slice": index}, prompts)
    return path


@with_files
@given(several_objects, st.integers(0, 500))
def test_prompts_that_were_written_are_read(tmp_path, prompts, index):
    path = yaml_file(tmp_path / "slice_0_prompt.yml", prompts, "scans/ct_1.nii.gz", index)
    for source in (path, tmp_path):
        ((rater, cases),) = read_prompts(source).items()
        assert (rater, list(cases), list(cases["ct_1"])) == ("", ["ct_1"], [index])
        assert same(cases["ct_1"][index].prompts, prompts)
        assert cases["ct_1"][index].further == {}
    path.unlink()


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("objects", ["together", "apart"])
def test_written_again_the_file_is_the_same(tmp_path, name, objects):
    masks = np.zeros((20, 30), dtype=np.uint8)
    masks[3:9, 4:12], masks[5:14, 16:25] = 1, 2
    volume = VolumePrompts(masks[..., None], {1: [0], 2: [0]}, PROTOCOLS[name], objects)
    prompts = volume.at(0).united
    first = yaml_file(tmp_path / "first.yml", prompts)
    again = yaml_file(tmp_path / "again.yml", read_prompts(first)[""]["ct_1"][4].prompts)
    assert again.read_bytes() == first.read_bytes()


words = st.text("abcdefg _-.äß中,;\"'", min_size=1).map(str.strip).filter(bool)


@st.composite
def tables(draw) -> dict:
    """Return {rater: {case: {slice: ({object: prompts}, further columns)}}}."""
    named = draw(st.booleans())
    slices = st.dictionaries(
        st.integers(0, 300),
        st.tuples(
            st.dictionaries(words, objects(), min_size=1, max_size=2),
            st.fixed_dictionaries({"seconds": st.sampled_from(["", "3.5", "12"])}),
        ),
        min_size=1,
        max_size=2,
    )
    cases = st.dictionaries(words, slices, min_size=1, max_size=2)
    return draw(st.dictionaries(words if named else st.just(""), cases, min_size=1, max_size=2))


def rows_of(table: dict) -> list[dict]:
    return [
        {"rater": rater, "case": case, "slice": index, "object": name, **further, **shape}
        for rater, cases in table.items()
        for case, slices in cases.items()
        for index, (several, further) in slices.items()
        for name, prompts in several.items()
        for shape in shapes_of(prompts)
    ]


def shapes_of(prompts: Prompts) -> list[dict]:
    shapes = [
        {"kind": KINDS[1 - label], "row": row, "column": column}
        for (row, column), label in zip(prompts.points_rc, prompts.labels, strict=True)
    ]
    if prompts.box_rc is not None:
        corners = zip(("row", "column", "row2", "column2"), prompts.box_rc, strict=True)
        shapes.append({"kind": "box", **dict(corners)})
    return shapes


def csv_file(path: Path, rows: list[dict], columns: list[str], **options) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", **options)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode())
    return path


@with_files
@given(tables(), st.randoms(), st.sampled_from(["\n", "\r\n"]))
def test_tables_that_were_written_are_read(tmp_path, table, random, lineterminator):
    columns = ["object", "seconds", *COLUMNS]
    if "" not in table:
        columns.append("rater")
    random.shuffle(columns)
    path = csv_file(tmp_path / "t.csv", rows_of(table), columns, lineterminator=lineterminator)
    read = read_prompts(path)
    assert list(read) == list(table)
    for rater, cases in table.items():
        assert list(read[rater]) == list(cases)
        for case, slices in cases.items():
            assert list(read[rater][case]) == list(slices)
            for index, (several, further) in slices.items():
                found = read[rater][case][index]
                assert same(found.prompts, list(several.values()))
                assert found.further == further


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_by_hand(tmp_path):
    text = """\ufeffcase, slice, kind, row, column, row2, column2, rater, seconds
a, 3, box, 1, 2, 5, 6, ann, 7.5
a, 3, positive, 3.0, 4, , , ann,
,,,,,,,,

b, 0, negative, 9, 8,,, ann, 2
a, 3, positive, 2, 2,,, bob, 1
a, 3, negative, 0, 0,,, ann,
"""
    read = read_prompts(table(tmp_path / "t.CSV", text))
    assert {
        rater: {case: [*of] for case, of in cases.items()} for rater, cases in read.items()
    } == {
        "ann": {"a": [3], "b": [0]},
        "bob": {"a": [3]},
    }
    (prompts,), drawn, further = read["ann"]["a"][3]
    assert prompts.points_rc.tolist() == [[3, 4], [0, 0]]
    assert prompts.labels.tolist() == [1, 0]
    assert prompts.box_rc.tolist() == [1, 2, 5, 6]
    assert further == {"seconds": "7.5"}
    assert [each.where.rpartition(" ")[2] for each in drawn] == ["2", "3", "8"]


def test_a_table_of_clicks_needs_no_columns_of_boxes(tmp_path):
    path = table(tmp_path / "t.csv", "case,slice,kind,row,column\na,0,positive,1,2\n")
    (prompts,) = read_prompts(path)[""]["a"][0].prompts
    assert (prompts.points_rc.tolist(), prompts.box_rc) == ([[1, 2]], None)


HEADER = "case,slice,kind,row,column,row2,column2,object,seconds\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEADER + "a,0,click,1,2,,,o,\n", 2, "kind is 'click'; write one of positive"),
        (HEADER + "a,0,,1,2,,,o,\n", 2, "kind is ''"),
        ("case,slice,kind,row\na,0,positive,1\n", 1, "has no column column"),
        ("case;slice;kind;row;column\n", 1, "has no column case"),
        ("case,slice,kind,row,column,\n", 1, "a column has no name"),
        ("case,slice,kind,row,column,row\n", 1, "the name of another"),
        (HEADER + "a,0,positive,one,2,,,o,\n", 2, "row is 'one'; write an integer"),
        (HEADER + "a,0,positive,1.5,2,,,o,\n", 2, "row is '1.5'"),
        (HEADER + "a,0,positive,,2,,,o,\n", 2, "row is ''"),
        (HEADER + "a,0,positive,1,1_0,,,o,\n", 2, "column is '1_0'"),
        (HEADER + "a,0,positive,1,12345678901234567890,,,o,\n", 2, "column is '1234"),
        (HEADER + "a,x,positive,1,2,,,o,\n", 2, "slice is 'x'"),
        (HEADER + "a,0,box,1,2,3,,o,\n", 2, "column2 is ''"),
        ("case,slice,kind,row,column\na,0,box,1,2\n", 2, "row2 is ''"),
        (HEADER + "a,0,positive,1,2,3,4,o,\n", 2, "a positive point has no row2"),
        (HEADER + "a,0,box,1,2,1,5,o,\n", 2, "has no area"),
        (HEADER + "a,0,box,1,5,3,5,o,\n", 2, "has no area"),
        (HEADER + "a,0,box,3,5,1,2,o,\n", 2, "has no area"),
        (HEADER + "a,0,box,1,2,3,4,o,\na,0,box,1,2,3,5,o,\n", 3, "a second box"),
        (HEADER + "a,0,positive,1,2,,\n", 2, "has 7 cells for 9 columns"),
        (HEADER + "a,0,positive,1,2,,,o,,\n", 2, "has 10 cells"),
        (HEADER + ",0,positive,1,2,,,o,\n", 2, "has no case"),
        (HEADER + "a,0,positive,1,2,,,,\n", 2, "has no object"),
        (HEADER + "a,0,positive,1,2,,,o,5\na,0,negative,1,2,,,p,6\n", 3, "seconds is '6', but '5'"),
        ("\n" + HEADER + '\n"a\nb",0,positive,1,x,,,o,\n', 5, "column is 'x'"),
        (HEADER + 'a,0,positive,1,2,,,o,"' + "x" * 200_000 + '"\n', 2, "is not CSV"),
    ],
)
def test_a_mistake_in_a_table_is_one_line_with_its_place(tmp_path, text, line, words):
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(InputError) as error:
        read_prompts(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\n,,\n", HEADER, HEADER + "\n,,,,\n"])
def test_a_table_without_prompts_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"is empty|has no prompts"):
        read_prompts(table(tmp_path / "t.csv", text))


YAML = """image: scans/ct_1.nii.gz
masks: masks.nii.gz
slice: 4
points:
- row: 5
  column: 6
  label: 1
box:
  row_min: 1
  column_min: 2
  row_max: 8
  column_max: 9
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("row: 5", "row: 5.0", 5, "row is 5.0; write an integer"),
        ("row: 5", "row: five", 5, "row is 'five'"),
        ("row: 5", "row: true", 5, "row is True"),
        ("row: 5", f"row: {10**30}", 5, "write an integer"),
        ("column: 6", "colum: 6", 5, "unknown key 'colum'; there are row, column, label"),
        ("  column: 6\n", "", 5, "has no column"),
        ("label: 1", "label: 2", 5, "label is 2; 1 is positive, 0 negative"),
        ("row_max: 8", "row_max: 1", 9, "has no area"),
        ("column_max: 9", "column_max: '9'", 9, "column_max is '9'"),
        ("  row_max: 8\n", "", 9, "has no row_max"),
        ("slice: 4", "slice: four", 1, "slice is 'four'"),
        ("slice: 4\n", "", 1, "has no slice"),
        ("image: scans/ct_1.nii.gz", "image: 3", 1, "image is 3"),
        ("image: scans/ct_1.nii.gz", "image: /", 1, "image /: results cannot be named"),
        ("slice: 4", "slice: 4\nslice: 5", 1, "a key is there twice"),
        ("slice: 4", "slice: 4\nbox: null", 1, "a key is there twice"),
        ("slice: 4", "slice: 4\nboxes: []", 1, "unknown key 'boxes'"),
        ("slice: 4", "slice: 4\nobjects: []", 1, "unknown key 'points'"),
        ("- row: 5\n  column: 6\n  label: 1\n", "- [5, 6, 1]\n", 1, "in place of the keys row"),
        ("points:\n- row: 5\n  column: 6\n  label: 1\n", "points: none\n", 1, "points is no list"),
    ],
)
def test_a_mistake_in_a_yaml_file_is_one_line_with_its_place(tmp_path, old, new, line, words):
    path = table(tmp_path / "slice_4_prompt.yml", YAML.replace(old, new))
    with pytest.raises(InputError) as error:
        read_prompts(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image: a.nii\nslice: 0\npoints: []\nbox: null\n", "line 1: has neither points nor a box"),
        ("image: a.nii\nslice: 0\nobjects: []\n", "line 1: objects has no list"),
        ("image: a.nii\nslice: 0\nobjects:\n- points: []\n", "line 4: has neither"),
        ("image: a.nii\nslice: 0\nobjects:\n- 7\n", "line 1: 7 is in place of the keys points"),
        ("image: [\n", "is not YAML (while parsing"),
        ("image: &a {x: *a}\n", "is not YAML"),
        ("a: 2020-99-99\n", "is not YAML"),
        ("[" * 600, "is not YAML"),
        ("- 1\n", "is not a file of prompts"),
        ("", "is not a file of prompts"),
    ],
)
def test_other_yaml_is_refused(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        read_prompts(table(tmp_path / "slice_4_prompt.yml", text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@with_files
@given(st.integers(0, len(YAML)), st.integers(0, 12), st.text("\n\t :-[]{}&*!'\"0ax", max_size=3))
def test_an_edited_file_is_read_or_refused_in_one_line(tmp_path, start, length, new):
    for name, text in (
        ("slice_4_prompt.yml", YAML),
        ("t.csv", HEADER + "a,0,box,1,2,3,4,o,\n" * 5),
    ):
        path = table(tmp_path / name, text[:start] + new + text[start + length :])
        message = str(path)
        try:
            assert read_prompts(path)
        except InputError as error:
            message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message


def test_a_slice_in_two_files_is_refused(tmp_path):
    prompts = [Prompts(np.array([[1, 2]]), np.array([1]), None)]
    first = yaml_file(tmp_path / "a" / "slice_4_prompt.yml", prompts)
    second = yaml_file(tmp_path / "b" / "slice_4_prompt.yml", prompts)
    with pytest.raises(InputError) as error:
        read_prompts(tmp_path)
    assert str(error.value) == f"{second}: slice 4 of ct_1 is also in {first}; remove one"
    yaml_file(second, prompts, "ct_2.nii.gz")
    read = read_prompts(tmp_path)[""]
    assert {case: list(slices) for case, slices in read.items()} == {"ct_1": [4], "ct_2": [4]}


def test_cases_of_a_dataset_have_its_names(tmp_path):
    prompts = [Prompts(np.array([[1, 2]]), np.array([1]), None)]
    path = yaml_file(tmp_path / "slice_4_prompt.yml", prompts, "s0001/ct.nii.gz")
    assert list(read_prompts(path)[""]) == ["s0001_ct"]
    assert list(read_prompts(path, {"s0001/ct.nii.gz": "s0001"})[""]) == ["s0001"]


def test_files_that_are_not_there_are_refused(tmp_path):
    for name in ("missing.csv", "missing.yml"):
        with pytest.raises(InputError, match="no such file"):
            read_prompts(tmp_path / name)
    with pytest.raises(InputError, match=r"has no slice_N_prompt\.yml"):
        read_prompts(tmp_path)


def test_prompts_outside_the_slice_and_slices_that_are_not_there_are_one_line_each(tmp_path):
    inside = "a,0,positive,0,0,,\na,0,negative,9,19,,\na,2,box,0,0,10,20\n"
    outside = "a,0,positive,10,0,,\na,1,negative,0,20,,\na,2,positive,-1,5,,\n"
    boxes = "a,3,box,0,0,11,20\na,4,box,0,-1,10,20\n"
    text = ",".join(COLUMNS) + "\n" + inside + outside + boxes + "a,-1,positive,1,1,,\n"
    path = table(tmp_path / "t.csv", text)
    slices = read_prompts(path)[""]["a"]
    lines = find_misplaced(slices, (10, 20), 4)
    end = "is not inside the 10 rows and 20 columns of the slice; rows and columns count from 0"
    assert sorted(lines) == [
        f"{path}, line 10: there is no slice -1; give 0 to 3",
        f"{path}, line 5: the positive point (10, 0) {end}",
        f"{path}, line 6: the negative point (0, 20) {end}",
        f"{path}, line 7: the positive point (-1, 5) {end}",
        f"{path}, line 8: the box (0, 0, 11, 20) {end}",
        f"{path}, line 9: there is no slice 4; give 0 to 3",
    ]
    assert find_misplaced({2: slices[2]._replace(drawn=slices[2].drawn[:1])}, (10, 20), 4) == []
