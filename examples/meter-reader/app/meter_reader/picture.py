"""From the bytes of a picture to digit images as the model wants them.

A counter shows its digits in square cells of one height, side by side, light on dark. So the picture's shape
alone says how many digits there are, and no search for edges can go wrong. Within a cell the digit fills the
middle three quarters.

Pictures come from outside: their size is checked before a single pixel is decoded.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

MIN_HEIGHT = 8
MAX_HEIGHT = 512
MAX_DIGITS = 16
# How far a picture's width may be off a whole number of square cells, in cells.
MAX_MISFIT = 0.15
# Share of a cell's side that is frame, on each of its four sides.
CELL_MARGIN = 1 / 8
DIGIT_SIDE = 8
# Ink of the data set the models learn from runs from 0 to 16, not to 255.
FULL_INK = 16.0

Picture = npt.NDArray[np.uint8]
DigitImages = npt.NDArray[np.float32]


class BadPictureError(Exception):
    """The picture cannot be read as a counter; the text tells the sender why."""


def parse_png(body: bytes) -> Picture:
    """Decode a PNG file to grey values, shape [height, width].

    Raises:
        BadPictureError: no PNG file, damaged, or of a size no counter has.
    """
    return _parse_file(body, "PNG")


def parse_jpeg(body: bytes) -> Picture:
    """Decode a JPEG file, as cameras give them, to grey values, shape [height, width].

    Raises:
        BadPictureError: no JPEG file, damaged, or of a size no counter has.
    """
    return _parse_file(body, "JPEG")


def _parse_file(body: bytes, kind: str) -> Picture:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(body), formats=[kind]) as image:
                check_size(*image.size)
                return np.asarray(image.convert("L"), dtype=np.uint8)
    except BadPictureError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombWarning) as error:
        # Pillow has no one error for a damaged file: each of these comes out of one broken chunk or another.
        raise BadPictureError(f"the body is no readable {kind} file") from error


def parse_raw(body: bytes, width: int, height: int) -> Picture:
    """Take raw grey values, one byte per pixel, row by row from the top.

    Raises:
        BadPictureError: the body does not hold width times height bytes, or no counter has this size.
    """
    check_size(width, height)
    if len(body) != width * height:
        raise BadPictureError(
            f"{width}x{height} grey pixels are {width * height} bytes, the body has {len(body)}"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(height, width)


def check_size(width: int, height: int) -> int:
    """How many digits a picture of this size in pixels shows.

    Raises:
        BadPictureError: too small, too large, or not a row of square cells.
    """
    if not MIN_HEIGHT <= height <= MAX_HEIGHT:
        raise BadPictureError(f"a counter is {MIN_HEIGHT} to {MAX_HEIGHT} pixels high, this one is {height}")
    cells = width / height
    count = round(cells)
    if not 1 <= count <= MAX_DIGITS:
        raise BadPictureError(
            f"a counter shows 1 to {MAX_DIGITS} square digit cells, this picture has room for {cells:.2f}"
        )
    if abs(cells - count) > MAX_MISFIT:
        raise BadPictureError(f"{width}x{height} pixels are {cells:.2f} square cells, wanted a whole number")
    return count


def split_digits(picture: Picture) -> DigitImages:
    """Cut a counter into digit images, shape [digits, 1, 8, 8], ink from 0 to 16.

    Raises:
        BadPictureError: the picture is not a row of square cells.
    """
    height, width = picture.shape
    count = check_size(width, height)
    image = Image.fromarray(picture)
    cell = width / count
    top, bottom = height * CELL_MARGIN, height * (1 - CELL_MARGIN)
    digits = np.empty((count, 1, DIGIT_SIDE, DIGIT_SIDE), dtype=np.float32)
    for at in range(count):
        box = ((at + CELL_MARGIN) * cell, top, (at + 1 - CELL_MARGIN) * cell, bottom)
        small = image.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BOX, box=box)
        digits[at, 0] = np.asarray(small, dtype=np.float32) * np.float32(FULL_INK / 255.0)
    return digits
