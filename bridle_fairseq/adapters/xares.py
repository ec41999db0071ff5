"""X-ARES: the benchmark builds an encoder without arguments from a Python file of yours.

from bridle_fairseq.adapters import xares


class MyEncoder(xares.XaresBase):
    source = "work/exported"
"""

from __future__ import annotations

from bridle_fairseq.adapters.frames import ExportFrames


class XaresBase(ExportFrames):
    """Base of an encoder for X-ARES, whose class name must end with ``Encoder``.

    Attributes:
        source, rows, layer: see :class:`.ExportFrames`.
    """

    source = "bridle-small-audio"
    rows = "frequency"
    layer: int | None = None

    def __init__(self) -> None:
        super().__init__(self.source, self.rows, self.layer)
