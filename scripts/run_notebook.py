"""Runs the code cells of a notebook in order, in one namespace, and stores what they print and plot in the file.

python scripts/run_notebook.py examples/first_steps.ipynb. Needs matplotlib, but no Jupyter.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run a notebook, write the outputs into its cells, and return its namespace."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("".join(cell["source"]), f"<cell {number}>", "exec"), names)
        cell["execution_count"], cell["outputs"] = number, []
        if printed.getvalue():
            lines = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": lines})
        for figure in map(pyplot.figure, pyplot.get_fignums()):
            data = {"image/png": picture(figure), "text/plain": [figure.get_label() or "A figure"]}
            cell["outputs"].append({"output_type": "display_data", "data": data, "metadata": {}})
        pyplot.close("all")
    return names


def picture(figure: Any) -> str:
    """A figure as PNG in base64."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    notebook = json.loads(path.read_text(encoding="utf-8"))
    run(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
