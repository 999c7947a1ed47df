"""A figure that notebooks show by themselves, without pyplot and its global state."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

MM_PER_INCH = 25.4
#: Pixels in a millimetre of a saved PNG: the lines of the grid fall on whole pixels.
PIXELS_PER_MM = 10
_NOTEBOOK_PIXELS_PER_MM = 4


class MillimetreFigure(Figure):
    """A figure whose size is given in millimetres, saved and shown in its true size.

    Args:
        width: In mm.
        height: In mm.

    Attributes:
        saved_dpi: Dots per inch with which `save_figure` saves it.
    """

    saved_dpi = PIXELS_PER_MM * MM_PER_INCH

    def __init__(self, width: float, height: float) -> None:
        super().__init__(
            figsize=(width / MM_PER_INCH, height / MM_PER_INCH), dpi=_NOTEBOOK_PIXELS_PER_MM * MM_PER_INCH
        )

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height in mm."""
        across, up = self.get_size_inches()
        return float(across * MM_PER_INCH), float(up * MM_PER_INCH)

    def add_mm_axes(self, left: float, bottom: float, width: float, height: float) -> Any:
        """Axes at a place given in mm from the lower left corner."""
        across, up = self.size_mm
        return self.add_axes((left / across, bottom / up, width / across, height / up))

    def _repr_png_(self) -> bytes:
        target = BytesIO()
        self.savefig(target, format="png", dpi=self.dpi)
        return target.getvalue()
