"""Every notebook runs from top to bottom, in its small version; `.ci/run` runs these tests."""

import json
import os
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

pytestmark = pytest.mark.slow
NOTEBOOKS = {
    path.stem: path for path in sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
}
# A kernel imports and compiles all of it again: two notebooks are enough to see that Jupyter runs
# them, with their magic commands and pictures.
IN_A_KERNEL = ("rotor", "training")


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name not in IN_A_KERNEL])
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFF_SMALL", "1")
    # Jupyter finds modules next to a notebook; this notebook runs in another folder.
    monkeypatch.syspath_prepend(NOTEBOOKS[name].parent)
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(NOTEBOOKS[name].read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}[{number}]", "exec"), scope)
    plt.close("all")


@pytest.mark.parametrize("name", IN_A_KERNEL)
# What the Jupyter libraries themselves warn about is not ours to mend.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_notebook_runs_in_jupyter(name, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("JAXFF_SMALL", "1")
    # As above.
    paths = [str(NOTEBOOKS[name].parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    rarely = "import gc; gc.set_threshold(50_000, 20, 100)"  # as in conftest.py
    notebook.cells.insert(0, nbformat.v4.new_code_cell(rarely))
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=os.environ.copy())
