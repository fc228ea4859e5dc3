"""Pages that need nothing but a browser: one file each, with everything they show inside."""

from __future__ import annotations

import base64
import math
import sys
from typing import Any

import cv2
import jinja2
import numpy as np

JPEG_QUALITY = 88


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; text is escaped, whatever it holds."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vidgen", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["megabytes"] = megabytes
    return environment.get_template(template).render(**values)


def finite(value: Any) -> float | None:
    """A number out of JSON; None where it is no number that can be drawn."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= sys.float_info.max else None


def number(value: float | None) -> str:
    """A measured value as people read it: four digits, and an exponent only where it is far from 1."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def megabytes(num_bytes: float) -> str:
    """A size in words."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.0f} kB"


def data_uri(content: bytes, kind: str) -> str:
    """File content as an address that stands for itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture_uri(pixels: np.ndarray) -> str:
    """A picture, uint8 [H,W,3], as an address of a JPEG."""
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data_uri(content.tobytes(), "image/jpeg")
