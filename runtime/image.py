"""Reading an image from wherever it is, the way people expect: upright, RGB, or one clear error."""

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import ImageError

ImageSource = str | Path | bytes | NDArray[np.uint8]
"""Whatever `read_image` reads: a path, a file's bytes, or an array."""

MAX_PIXELS = 2**28
"""The most pixels an image may have: room for a 200-megapixel phone's; at three bytes a pixel it is 768 MiB.

A file of a few kB can claim far more, so what a JPEG, PNG or GIF claims is read before decoding. A WebP
cannot claim more, and for the other formats OpenCV's own limit, four times this, stands.
"""

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)

# It is built with a format's reader and writer together, but says only whether the writer is there.
IMAGE_SUFFIXES = frozenset(suffix for suffix in _SUFFIXES if cv2.haveImageWriter(suffix))
"""The suffixes, in lower case, of the files in a folder that count as images: what this OpenCV reads."""

# OpenCV takes a file's bytes as one array that is indexed by a C int.
_MAX_BYTES = 2**31 - 1


def read_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read an image, decode it, turn it upright, and make it RGB.

    Gray becomes three equal channels, transparency is dropped (in a TIFF it is laid over black), of 16 bits
    the upper 8 are kept, CMYK becomes RGB without a colour profile (within one level of Pillow's), and an
    animation gives its first frame. The orientation that a camera noted in EXIF is applied.

    Args:
        source: A file's path, a file's bytes, or an array: (height, width, 3) uint8 RGB, (height, width, 4)
            uint8 RGBA, or (height, width) or (height, width, 1) uint8 gray, each 0..255.

    Returns:
        (height, width, 3) uint8, RGB, 0..255; a (height, width, 3) array is given back as it is, not copied.

    Raises:
        ImageError: The file is absent, unreadable, empty, cut short, damaged, too large, or no image; or the
            array has another shape or type.

    >>> read_image(np.zeros((48, 64), np.uint8)).shape
    (48, 64, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes):
        return _decode(source, "the image")
    if isinstance(source, str | Path):
        return _decode(_read_bytes(Path(source)), str(source))
    raise ImageError(
        f"expected an image as a path, bytes or a numpy array, got {type(source).__name__}; "
        f"numpy.asarray makes an array of most images"
    )


def _from_array(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if (
        array.dtype != np.uint8
        or array.size == 0
        or not (gray or (array.ndim == 3 and array.shape[2] in (3, 4)))
    ):
        raise ImageError(
            f"expected an array of shape (height, width) or (height, width, 1, 3 or 4) and dtype uint8, got "
            f"{array.shape} {array.dtype}; convert it to RGB, 0 to 255, with the channel last"
        )
    if gray:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array[..., :3] if array.shape[2] == 4 else array


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not an image; name the files in it")
        if path.is_char_device() or path.is_block_device():
            raise ImageError(f"{path} is a device, not an image; name a file")
        if path.stat().st_size > _MAX_BYTES:
            raise ImageError(f"{path} is larger than 2 GiB; expected an image, and this one cannot be read")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; check the path") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read; check its permissions") from None
    except (OSError, ValueError) as error:  # a null character in the path is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{str(path)!r} cannot be read ({reason}); check the path and the disk") from error


def _decode(data: bytes, name: str) -> NDArray[np.uint8]:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    if len(data) > _MAX_BYTES:
        raise ImageError(f"{name} is larger than 2 GiB; expected an image, and this one cannot be read")
    _inspect(data, name)
    # OpenCV turns JPEG, PNG and TIFF upright, but WebP only in newer versions.
    webp = _is_webp(data)
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if webp else 0)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise ImageError(f"{name} has more pixels than OpenCV decodes; shrink it first") from error
        image = None
    if image is None:
        raise ImageError(
            f"{name} is damaged, or no image that OpenCV {cv2.__version__} reads; copy it again, or convert "
            f"it to JPEG or PNG"
        )
    if webp:
        image = _upright(image, _webp_orientation(data))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _inspect(data: bytes, name: str) -> None:
    """Refuse what claims too many pixels or is cut short, since OpenCV may make up the rest of a JPEG."""
    size = None
    complete = True
    if data.startswith(b"\xff\xd8\xff"):
        size, complete = _walk_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        size, complete = _walk_png(data)
    elif data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        size = height, width
    elif _is_webp(data):
        complete = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{name} has {size[1]} x {size[0]} pixels, more than the {MAX_PIXELS // 10**6} million that are "
            f"read; shrink it first"
        )
    if not complete:
        raise ImageError(f"{name} is truncated; copy or download it again")


def _walk_jpeg(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """Give height and width, and whether the image's end is there (ITU-T T.81, annex B).

    Segments are skipped by their length, since one may hold a thumbnail, a whole JPEG with an end of its own.
    """
    size = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return size, True  # no segment where one must be: damaged, which the decoder finds
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # TEM and RST stand alone
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        # SOF0 to SOF15, without DHT (C4), JPG (C8) and DAC (CC)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = height, width
        if marker == 0xDA:  # SOS: scans up to the end of the image, where FF D9 cannot occur as data
            return size, data.find(b"\xff\xd9", at + 2 + length) >= 0
        at += 2 + length
    return size, False


def _walk_png(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """Give height and width, and whether the last chunk is there (PNG specification, section 5.3)."""
    size = None
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR" and at + 16 <= len(data):
            width, height = struct.unpack_from(">II", data, at + 8)
            size = height, width
        at += 12 + length
        if kind == b"IEND":
            return size, at <= len(data)
    return size, False


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _webp_orientation(data: bytes) -> int:
    """Read the orientation in a WebP's EXIF chunk (WebP container specification); 1, upright, without one."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return 1


def _exif_orientation(exif: bytes) -> int:
    """Find tag 274 in the first directory (TIFF 6.0, section 2); 1 where there is none or it is not one."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == 274:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the directory points past the end
        pass
    return 1


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation: 5 to 8 swap the axes, and then each of the eight is a flip or none."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    rows = orientation in (3, 4, 7, 8)
    columns = orientation in (2, 3, 6, 7)
    return image[:: -1 if rows else 1, :: -1 if columns else 1]
