"""Every kind of image file either is read as people expect or gives one clear error."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vit_edge.errors import ImageError
from vit_edge.runtime.image import IMAGE_SUFFIXES, MAX_PIXELS, read_image

from ..shared import SHARED, needs_shared


def picture(height: int = 60, width: int = 90) -> Image.Image:
    """A smooth picture that has no symmetry, so that every turn and flip of it is another picture."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (2 * columns + rows, 255 - 2 * rows, columns * rows // 30 + 40)
    return Image.fromarray(np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> NDArray[np.uint8]:
    """What Pillow makes of a file: the answer that people know."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(height: int, width: int, *, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def assert_same(result: NDArray[np.uint8], expected: NDArray[np.uint8], levels: int = 0) -> None:
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).max() <= levels


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_a_colour_image_is_read_as_pillow_reads_it(kind: str) -> None:
    """Channels in the wrong order, or another decoder's rounding, would change answers."""
    data = encoded(picture(), kind)
    assert_same(read_image(data), pillow(data))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 30}], ids=str)
def test_every_kind_of_jpeg_is_read_as_pillow_reads_it(options: dict[str, object]) -> None:
    """Progressive files hold several scans, and the end is looked for behind the first."""
    data = encoded(picture(), "JPEG", **options)
    assert_same(read_image(data), pillow(data))


@needs_shared
def test_real_photos_are_read_as_pillow_reads_them() -> None:
    """Photos from the world carry thumbnails, profiles and comments."""
    paths = sorted((SHARED / "data" / "calibration250").glob("*.JPEG"))
    assert len(paths) == 250
    for path in paths[::10]:
        assert_same(read_image(path), pillow(path.read_bytes()))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *[("PNG", mode) for mode in ("L", "LA", "P", "1", "RGBA")],
        *[("TIFF", mode) for mode in ("L", "P", "1")],
        *[("WEBP", "RGBA"), ("BMP", "L"), ("BMP", "P")],
    ],
)
def test_gray_palette_and_transparent_images_become_rgb(mode: str, kind: str) -> None:
    """A network takes three channels; transparency is dropped, as Pillow's ``convert("RGB")`` does."""
    image = picture().convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(np.tile(np.arange(90, dtype=np.uint8) * 2, (60, 1))))
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert_same(read_image(data), pillow(data))


def test_a_gray_jpeg_becomes_three_equal_channels() -> None:
    """ImageNet itself has some."""
    data = encoded(picture().convert("L"), "JPEG")
    result = read_image(data)
    assert_same(result, pillow(data))
    assert (result == result[..., :1]).all()


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    """Adobe writes CMYK inverted and Pillow does too; a reader that misses it gives a negative."""
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert_same(read_image(data), pillow(data), levels=1)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)], ids=["gray", "RGB", "RGBA"])
def test_sixteen_bits_are_scaled_to_eight(colour: int, channels: int) -> None:
    """Cut off instead of scaled, such an image would be noise or white."""
    values = np.random.default_rng(0).integers(0, 65536, (12, 20, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    expected = np.broadcast_to((values[..., :3] >> 8).astype(np.uint8), (12, 20, 3))
    assert_same(read_image(png(12, 20, depth=16, colour=colour, pixels=rows)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_taken_with_the_camera_turned_is_upright(kind: str, orientation: int) -> None:
    """Phones store the sensor's rows and a note how to turn them; networks know no cat on its side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    result = read_image(data)
    assert result.shape == ((60, 90, 3) if orientation < 5 else (90, 60, 3))
    assert_same(result, pillow(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("value", "count"), [(6, 1), (0, 1), (9, 1), (6, 60000)], ids=["6", "0", "9", "cut short"]
)
def test_a_webps_orientation_is_read_in_both_byte_orders_and_ignored_when_it_is_nonsense(
    order: str, value: int, count: int
) -> None:
    """The note is written by any camera or tool, and must never stop a picture that decodes."""
    tag = 0x0112 if count == 1 else 0x0113
    exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "IHHHIHH", 8, count, tag, 3, 1, value, 0
    )
    data = encoded(picture(), "WEBP", exif=exif)
    assert read_image(data).shape == ((90, 60, 3) if (value, count) == (6, 1) else (60, 90, 3))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame_or_says_that_it_cannot(kind: str) -> None:
    """The first frame is what a viewer shows; versions of OpenCV that read no animations must not crash."""
    frames = [picture(), picture().rotate(180)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    if kind == "PNG" or ".gif" in IMAGE_SUFFIXES:  # OpenCV learned GIF and animated WebP together
        assert_same(read_image(data), pillow(data))
    else:
        with pytest.raises(ImageError, match=r"no image that OpenCV .* reads; .*convert it to JPEG or PNG"):
            read_image(data)


def test_a_path_as_text_a_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    """The name need not be ASCII: OpenCV's own reader fails there on Windows."""
    path = tmp_path / "größe 猫.png"
    picture().save(path)
    expected = np.asarray(picture())
    for source in (path, str(path), path.read_bytes()):
        assert_same(read_image(source), expected)


def test_the_suffix_does_not_count(tmp_path: Path) -> None:
    """Half of the world's .jpg files from the web are something else."""
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(picture(), "PNG"))
    assert_same(read_image(path), np.asarray(picture()))


def test_an_rgb_array_is_given_back_and_not_copied() -> None:
    """A camera's frame is several MB, thirty times a second."""
    image = np.asarray(picture())
    assert read_image(image) is image


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 4)])
def test_gray_and_transparent_arrays_become_rgb(shape: tuple[int, ...]) -> None:
    """OpenCV and scikit-image give such arrays."""
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    expected = array[..., :3] if shape[-1] == 4 else np.stack([array.reshape(4, 5)] * 3, axis=-1)
    assert_same(read_image(array), expected)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5, 3), np.uint16),
        np.zeros((4, 5, 3), bool),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((4, 5), object),
    ],
    ids=lambda array: f"{array.shape}-{array.dtype}",
)
def test_an_array_of_another_shape_or_type_is_refused_with_both(array: NDArray[np.uint8]) -> None:
    """What 0.5 means in a float image is anybody's guess, and ours would be wrong for somebody."""
    with pytest.raises(ImageError) as caught:
        read_image(array)
    assert "expected an array of shape (height, width) or (height, width, 1, 3 or 4)" in str(caught.value)
    assert f"got {array.shape} {array.dtype}; convert it" in str(caught.value)


@pytest.mark.parametrize("source", [None, 7, picture(), [1, 2]], ids=["None", "int", "Pillow", "list"])
def test_a_source_of_another_kind_is_refused_by_its_type(source: object) -> None:
    """The next step is in the sentence."""
    with pytest.raises(ImageError, match="expected an image as a path, bytes or a numpy array, got"):
        read_image(source)  # type: ignore[arg-type]


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("thumbnail", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.9999])
def test_a_truncated_jpeg_is_refused(share: float, thumbnail: bool, progressive: bool) -> None:
    """OpenCV 4 paints the missing part gray and says nothing; a thumbnail's end is not the image's."""
    noisy = Image.effect_noise((300, 200), 90).convert("RGB")
    exif = b"Exif\0\0" + encoded(picture(), "JPEG") if thumbnail else b""
    data = encoded(noisy, "JPEG", progressive=progressive, exif=exif)
    assert read_image(data).shape == (200, 300, 3)
    with pytest.raises(ImageError, match=r"^the image is truncated; copy or download it again$"):
        read_image(cut(data, share))


@pytest.mark.parametrize("length", [3, 10, 40, 170])
def test_a_jpeg_that_ends_in_its_header_is_refused(length: int) -> None:
    """A download that broke off at once."""
    with pytest.raises(ImageError, match=r"^the image is truncated"):
        read_image(encoded(picture(), "JPEG")[:length])


def test_bytes_after_a_jpegs_end_do_not_count() -> None:
    """Phones append a second picture or a video; cameras pad."""
    data = encoded(picture(), "JPEG")
    assert_same(read_image(data + b"\0" * 1000), pillow(data))
    assert_same(read_image(data + encoded(picture(), "JPEG")[:100]), pillow(data))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("missing", [1, 4, 12, 200])
def test_a_truncated_png_or_webp_is_refused(kind: str, missing: int) -> None:
    """The last bytes hold the last rows."""
    with pytest.raises(ImageError, match=r"^the image is truncated"):
        read_image(encoded(Image.effect_noise((80, 60), 90), kind)[:-missing])


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "PPM", "JPEG2000"])
def test_other_truncated_files_are_refused(kind: str) -> None:
    """Whatever the decoder finds, it is one sentence."""
    with pytest.raises(ImageError, match=r"^the image is damaged, or no image that OpenCV"):
        read_image(cut(encoded(picture(), kind), 0.6))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"IDAT", b"IDAX"),
        lambda data: data.replace(b"IHDR", b"JHDR"),
        lambda data: data[:60] + bytes([data[60] ^ 255]) + data[61:],
    ],
    ids=["no pixels", "no header", "a flipped byte"],
)
def test_a_damaged_png_is_refused(damage: Callable[[bytes], bytes]) -> None:
    """A bad disk or memory card."""
    with pytest.raises(ImageError, match=r"^the image is damaged"):
        read_image(damage(encoded(picture(), "PNG")))


@pytest.mark.parametrize(
    "data",
    [
        b"hello, world\n" * 50,
        b"\0" * 500,
        b"%PDF-1.7\n" + b"x" * 500,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"x" * 500,
        b"\xff",
    ],
    ids=["text", "zeros", "PDF", "SVG", "a JPEG's first bytes", "one byte"],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    """Folders hold more than images; the sentence says what to do."""
    with pytest.raises(
        ImageError, match=r"^the image is damaged, or no image that OpenCV .* reads; copy it again,"
    ):
        read_image(data)


def giant_jpeg() -> bytes:
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(data)


def giant_gif() -> bytes:
    data = bytearray(encoded(picture(), "GIF"))
    data[6:10] = struct.pack("<HH", 20000, 20000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(200_000, 100_000, depth=8, colour=2, pixels=b"\0" * 1000), "100000 x 200000"),
        (png(16385, 16384, depth=1, colour=0, pixels=b"\0" * 1000), "16384 x 16385"),
        (giant_jpeg(), "65000 x 65000"),
        (giant_gif(), "20000 x 20000"),
    ],
    ids=["PNG", "just above", "JPEG", "GIF"],
)
def test_a_small_file_that_claims_a_giant_image_is_refused_unread(data: bytes, size: str) -> None:
    """A few kB can unpack to many GB, and out of memory the process is killed, not the image."""
    with pytest.raises(
        ImageError, match=f"^the image has {size} pixels, more than the 268 million that are read"
    ):
        read_image(data)


def test_a_giant_claim_in_another_format_is_refused_by_opencv() -> None:
    """Its own limit still gives our sentence, and not a traceback of C++."""
    with pytest.raises(ImageError, match=r"^the image has more pixels than OpenCV decodes; shrink it first$"):
        read_image(b"P6\n60000 60000\n255\n" + b"\0" * 1000)


def test_the_limit_leaves_room_for_a_phones_200_megapixels() -> None:
    """Samsung's and Xiaomi's sensors give 16320 x 12240."""
    assert MAX_PIXELS > 16320 * 12240


def test_an_empty_file_a_missing_one_and_a_folder_are_named(tmp_path: Path) -> None:
    """Among a thousand files the name is what people need first."""
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for path, message in (
        (empty, f"{empty} is empty (0 bytes); copy or download it again"),
        (tmp_path / "none.jpg", f"{tmp_path / 'none.jpg'} does not exist; check the path"),
        (tmp_path, f"{tmp_path} is a folder, not an image; name the files in it"),
    ):
        for source in (path, str(path)):
            with pytest.raises(ImageError) as caught:
                read_image(source)
            assert str(caught.value) == message
    with pytest.raises(ImageError, match=r"^the image is empty"):
        read_image(b"")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """The decoder does not know the name, so it must be handed through."""
    for name, data, message in (
        ("note.jpg", b"hello", "is damaged, or no image"),
        ("half.jpg", cut(encoded(picture(), "JPEG"), 0.5), "is truncated"),
        ("huge.jpg", giant_jpeg(), "has 65000 x 65000 pixels"),
        ("huge.ppm", b"P6\n60000 60000\n255\n", "has more pixels than OpenCV decodes"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000], ids=["a null character", "too long"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    """The system's own refusals differ in type, and one is no OSError."""
    with pytest.raises(
        ImageError, match=r"cannot be read \(.*\); check the path|does not exist; check the path"
    ):
        read_image(name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    """The next step is the permissions, not the picture."""
    path = tmp_path / "secret.png"
    picture().save(path)
    path.chmod(0)
    with pytest.raises(ImageError, match=r"secret\.png may not be read; check its permissions"):
        read_image(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_an_endless_device_is_refused() -> None:
    """Reading it would fill the memory first."""
    with pytest.raises(ImageError, match=r"^/dev/zero is a device, not an image; name a file$"):
        read_image("/dev/zero")


def test_a_file_beyond_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    """A video given by mistake would be read into memory before OpenCV could refuse it."""
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: takes no space
    with pytest.raises(ImageError, match=r"film\.mp4 is larger than 2 GiB"):
        read_image(path)


def test_the_suffixes_are_those_that_opencv_reads() -> None:
    """A folder is searched by suffix; one that cannot be read would make every such file an error."""
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"} <= IMAGE_SUFFIXES
    kinds = {".gif": "GIF", ".jp2": "JPEG2000", ".avif": "AVIF", ".dib": "BMP", ".jpe": "JPEG", ".pgm": "PPM"}
    for suffix in sorted(IMAGE_SUFFIXES - {".pbm", ".pnm"}):
        kind = kinds.get(suffix, Image.registered_extensions()[suffix])
        assert read_image(encoded(picture(), kind)).shape == (60, 90, 3)
    if int(cv2.__version__.split(".")[0]) >= 5:
        assert {".gif", ".avif", ".jp2"} <= IMAGE_SUFFIXES
