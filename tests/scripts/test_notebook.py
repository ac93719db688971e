"""docs/first_steps.ipynb, run from the first cell to the last."""

import json
import re

import pytest
from conftest import ROOT

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOK = ROOT / "docs/first_steps.ipynb"
LOWEST_DICE = 0.9


def test_the_file_holds_no_results():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    # Names, because random ids say nothing in a diff.
    assert all(re.fullmatch(r"[a-z-]+", cell["id"]) for cell in cells)
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_links_lead_to_existing_files():
    for target in re.findall(r"\]\(([^)]+)\)", NOTEBOOK.read_text()):
        assert (NOTEBOOK.parent / target).exists(), target


# The sockets of a kernel are closed when they are collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_notebook_runs(tmp_path, monkeypatch):
    """In a copy, because it writes a volume beside its folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # not in the home folder
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "docs").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "docs")}}
    nbclient.NotebookClient(notebook, timeout=100, resources=resources).execute()
    cells = {cell["id"]: cell.get("outputs", []) for cell in notebook["cells"]}

    def text(name):
        return "".join(output.get("text", "") for output in cells[name])

    assert "shape: (512, 512, 8)" in text("read")
    assert "faults: []" in text("read")
    dice = float(re.search(r"Dice score: (\S+)", text("segment"))[1])
    assert LOWEST_DICE < dice < 1
    for name in ("prompts", "segment", "map"):
        pictures = [output["data"]["image/png"] for output in cells[name] if "data" in output]
        assert [len(picture) > 10_000 for picture in pictures] == [True]
    assert (tmp_path / "working_data/first_steps/CT/phantom_001.nii.gz").exists()
