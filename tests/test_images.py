"""decode_image on every kind of file that people have."""

import io
import os
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from features.images import (
    STRANGERS_PICTURES,
    DecodeLimits,
    ImageError,
    decode,
    decode_image,
    decode_with_size,
    extensions,
    formats,
)
from features.images.limits import MemoryBudget


def encoded(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """RGB with every pixel different: red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 7], axis=2).astype(np.uint8)


def png_with_bits(values: np.ndarray, bit_depth: int, color_type: int) -> bytes:
    """A PNG written by hand: Pillow cannot write every kind that it reads."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_give_the_pixels(format):
    pixels = gradient()
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = decode_image(encoded(Image.fromarray(pixels), format, **options))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, pixels)


def test_path_string_and_bytes_agree(tmp_path):
    path = tmp_path / "größe 图 🙂.png"
    path.write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode_image(source), gradient())


def test_path_as_long_as_the_system_takes(tmp_path):
    longest = os.pathconf(tmp_path, "PC_PATH_MAX") - 10
    folder = tmp_path
    while len(str(folder)) + 300 < longest:
        folder /= "d" * 200
    folder.mkdir(parents=True)
    path = folder / ("p" * min(240, longest - len(str(folder)) - 5) + ".png")
    path.write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    assert len(str(path)) > longest - 100
    np.testing.assert_array_equal(decode_image(path), gradient())


def test_content_decides_not_the_extension(tmp_path):
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    np.testing.assert_array_equal(decode_image(path), gradient())


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(orientation, seen):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(gradient()), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(stored), seen(gradient()))


@pytest.mark.parametrize(
    ("min_side", "divisor"), [(1, 8), (75, 8), (76, 4), (150, 4), (151, 2), (300, 2), (301, 1), (5000, 1)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_is_decoded_at_the_scale_that_is_of_use(min_side, divisor, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(gradient(601, 1000)).resize((1000, 601))
    jpeg = encoded(picture, "JPEG", quality=95, exif=exif)
    whole = decode_image(jpeg)
    pixels, size = decode_with_size(jpeg, min_side=min_side)
    assert size == whole.shape[1::-1]
    assert pixels.shape == (-(-whole.shape[0] // divisor), -(-whole.shape[1] // divisor), 3)
    assert min(pixels.shape[:2]) >= min(min_side, 601)
    alike = Image.fromarray(whole).reduce(divisor)
    assert np.abs(pixels.astype(int) - np.asarray(alike)).mean() < 2
    np.testing.assert_array_equal(decode_image(jpeg, min_side=min_side), pixels)


def test_only_jpeg_is_reduced_and_small_images_never():
    for format in ("PNG", "WEBP"):
        assert decode_image(encoded(Image.new("RGB", (100, 90)), format), min_side=10).shape == (90, 100, 3)
    assert decode_image(encoded(Image.new("RGB", (19, 300)), "JPEG"), min_side=10).shape == (300, 19, 3)
    with pytest.raises(ValueError, match="min_side must be at least 1, got 0"):
        decode_image(b"x", min_side=0)


def test_size_of_a_reduced_image_that_looks_square():
    """1001 x 1007 at 1/8 is 126 x 126: only the EXIF knows which side was which."""
    exif = Image.Exif()
    exif[0x0112] = 8
    jpeg = encoded(Image.new("RGB", (1001, 1007)), "JPEG", exif=exif)
    pixels, size = decode_with_size(jpeg, min_side=100)
    assert (pixels.shape, size) == ((126, 126, 3), (1007, 1001))


def test_avif():
    picture = Image.fromarray(gradient(64, 96))
    decoded = decode_image(encoded(picture, "AVIF", quality=95))
    assert np.abs(decoded.astype(int) - np.asarray(picture)).mean() < 4
    assert ".avif" in extensions()


HEIC_HEADER = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"


@pytest.fixture
def heic_plugin(monkeypatch):
    """Sets what `import pillow_heif` gives; whatever gets registered is forgotten afterwards."""
    for registry in ("OPEN", "EXTENSION"):
        kept = {key: value for key, value in getattr(Image, registry).items() if "HEIF" not in (key, value)}
        monkeypatch.setattr(Image, registry, kept)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    formats._register_optional.cache_clear()
    yield lambda module: monkeypatch.setitem(sys.modules, "pillow_heif", module)
    formats._register_optional.cache_clear()


def test_heic_without_its_package_says_what_to_install(heic_plugin):
    heic_plugin(None)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        decode_image(HEIC_HEADER + bytes(100))
    assert not {".heic", ".heif"} & extensions()


def test_heic_is_read_as_soon_as_its_package_is_there(heic_plugin):
    def register_heif_opener():
        Image.register_open("HEIF", lambda file, name: Image.new("RGB", (3, 2), "red"), lambda p: p[4:8] == b"ftyp")
        Image.register_extensions("HEIF", [".heic", ".heif"])

    heic_plugin(SimpleNamespace(register_heif_opener=register_heif_opener))
    assert decode_image(HEIC_HEADER).tolist() == [[[255, 0, 0]] * 3] * 2
    assert {".heic", ".heif"} <= extensions()


def test_other_images_that_need_a_package_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    dng = io.BytesIO()
    tifffile.imwrite(dng, gradient(), photometric="rgb", extratags=[(0xC612, 1, 4, b"\1\4\0\0", True)])
    for content in (dng.getvalue(), b"II*\0\x10\0\0\0CR\2\0" + bytes(99), b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(99)):
        with pytest.raises(ImageError, match="camera raw images need an extra package: pip install rawpy"):
            decode_image(content)
    if "JXL" not in Image.OPEN:
        with pytest.raises(ImageError, match="JPEG XL images need an extra package: pip install pillow-jxl-plugin"):
            decode_image(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99))


@pytest.mark.parametrize("kind", ["JPEG", "BITMAP"])
def test_raw_gives_its_preview_upright(monkeypatch, kind):
    """A stand-in for rawpy: no camera's file is small enough to be kept here."""
    preview = encoded(Image.fromarray(gradient()), "JPEG") if kind == "JPEG" else gradient()
    opened = []

    class Raw:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def extract_thumb(self):
            return SimpleNamespace(format=kind, data=preview)

    rawpy = SimpleNamespace(
        imread=lambda file: opened.append(file.read()) or Raw(),
        ThumbFormat=SimpleNamespace(JPEG="JPEG"),
        LibRawError=RuntimeError,
    )
    monkeypatch.setitem(sys.modules, "rawpy", rawpy)
    dng = io.BytesIO()
    tags = [(0xC612, 1, 4, b"\1\4\0\0", True), (0x112, 3, 1, 6, True)]
    tifffile.imwrite(dng, np.zeros((4, 4), np.uint16), photometric="minisblack", extratags=tags)
    pixels = decode_image(dng.getvalue())
    assert opened == [dng.getvalue()]
    assert pixels.shape == (40, 24, 3)
    assert np.abs(pixels.astype(int) - np.rot90(gradient(), -1)).mean() < 4


def photo_with_exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A JPEG of 24 x 40 whose EXIF metadata have these entries: tag, type, count, the four bytes of the value."""
    directory = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4)
    jpeg = encoded(Image.fromarray(gradient()), "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


TURNED = (0x112, 3, 1, b"\6\0\0\0")


def test_orientation_holds_whatever_else_the_metadata_say():
    """Some 1,200 combinations of tag, type, count and value, before and after the orientation."""
    tags = (0, 0x100, 0x103, 0x10F, 0x11A, 0x128, 0x213, 0x2BC, 0x8769, 0x8825, 0x9003, 0xA005, 0xFFFF)
    values = [(1, b"2\0\0\0"), (2, b"2\0\0\0"), (9, b"\xff\xff\xff\x7f"), (0xFFFFFFFF, bytes(4))]
    for tag in tags:
        for kind in (*range(13), 0xFFFF):
            for count, value in values:
                odd = (tag, kind, count, value)
                for entries in ((TURNED, odd), (odd, TURNED)):
                    pixels, size = decode_with_size(photo_with_exif(*entries))
                    assert (pixels.shape, size) == ((40, 24, 3), (24, 40)), entries


@pytest.mark.parametrize(
    "entry",
    [(0x112, 3, 2, b"\6\0\6\0"), (0x112, 4, 1, b"\6\0\0\0"), (0x112, 2, 1, b"6\0\0\0"), (0x112, 3, 1, b"\x09\0\0\0")],
)
def test_an_orientation_that_is_none_turns_nothing(entry):
    assert decode_image(photo_with_exif(entry)).shape == (24, 40, 3)


def test_orientation_of_a_png_behind_its_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    png = encoded(Image.fromarray(gradient()), "PNG", exif=exif)
    start = png.index(b"eXIf") - 4
    (length,) = struct.unpack_from(">I", png, start)
    chunk = png[start : start + length + 12]
    moved = png.replace(chunk, b"")
    end = moved.index(b"IEND") - 4
    np.testing.assert_array_equal(decode_image(moved[:end] + chunk + moved[end:]), np.rot90(gradient(), -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_whatever_else_its_tags_say(orientation):
    odd = [(274, 3, 1, orientation, True), (700, 3, 2, (1, 2), True), (33723, 2, 2, b"2", True)]
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, gradient(), photometric="rgb", extratags=odd)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        decode_image(tiff.getvalue()), decode_image(encoded(Image.fromarray(gradient()), "PNG", exif=exif))
    )


def test_damaged_exif_costs_nothing_else():
    jpeg = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x99" * 40)
    assert decode_image(jpeg).shape == (24, 40, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode):
    image = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    data = encoded(image.quantize() if mode == "P" else image.convert(mode), "PNG")
    row = decode_image(data)[0, :, 0].astype(int)
    assert row[0] == 255
    assert row[1] == 0
    assert abs(row[2] - 127) <= 1


def test_single_transparent_colour():
    image = Image.new("RGB", (2, 1), (200, 10, 10))
    image.putpixel((1, 0), (1, 2, 3))
    decoded = decode_image(encoded(image, "PNG", transparency=(200, 10, 10)))
    assert decoded.tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_palette_grey_and_one_bit():
    red = Image.new("RGB", (3, 3), (250, 20, 20)).quantize(4)
    assert decode_image(encoded(red, "PNG"))[1, 1].tolist() == [250, 20, 20]
    assert decode_image(encoded(Image.new("L", (3, 3), 77), "PNG"))[0, 0].tolist() == [77, 77, 77]
    assert decode_image(encoded(Image.new("1", (3, 3), 1), "PNG"))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("ink_transform", [0, 2])
def test_cmyk_jpeg_as_adobe_writes_it(ink_transform):
    """Inks are stored inverted; with transform 2 the first three besides as YCbCr (YCCK)."""
    ink = np.array([0, 255, 255, 20]) if ink_transform == 0 else np.array([255 - 179, 255 - 171, 255, 20])
    jpeg = bytearray(encoded(Image.new("CMYK", (16, 16), tuple(ink.tolist())), "JPEG", quality=100, subsampling=0))
    marker = jpeg.index(b"Adobe")
    assert jpeg[marker + 11] == 0
    jpeg[marker + 11] = ink_transform
    seen = decode_image(bytes(jpeg))[8, 8].astype(int)
    # YCCK holds 255 minus the inverted inks, here (0, 255, 255), and that is (179, 171, 0) as YCbCr.
    assert abs(seen - [235, 0, 0]).max() <= 4


def test_cmyk_tiff_is_not_inverted():
    assert decode_image(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"))[0, 0].tolist() == [255, 0, 0]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert abs(decode_image(data)[2, 2].astype(int) - [255, 0, 0]).max() <= 3 * (format == "AVIF"), format


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_range(format):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), format))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour_keeps_its_range():
    values = np.array([[[0, 65535, 32768]]], dtype=np.uint16)
    assert decode_image(png_with_bits(values, 16, 2)).tolist() == [[[0, 255, 128]]]
    for byteorder in "<>":
        tiff = io.BytesIO()
        tifffile.imwrite(tiff, values, photometric="rgb", byteorder=byteorder)
        assert decode_image(tiff.getvalue()).tolist() == [[[0, 255, 128]]]
    with_alpha = np.array([[[0, 65535, 32768, 65535], [7, 7, 7, 0]]], dtype=np.uint16)
    assert decode_image(png_with_bits(with_alpha, 16, 6)).tolist() == [[[0, 255, 128], [255, 255, 255]]]


def with_chunk(png: bytes, kind: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    """A PNG with one more chunk behind its header."""
    if checksum is None:
        checksum = zlib.crc32(kind + content)
    return png[:33] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum) + png[33:]


def test_transparent_grey_of_16_bits():
    png = png_with_bits(np.array([[0, 257, 256, 65535]], dtype=np.uint16), 16, 0)
    assert decode_image(with_chunk(png, b"tRNS", struct.pack(">H", 0)))[0, :, 0].tolist() == [255, 1, 1, 255]
    assert decode_image(with_chunk(png, b"tRNS", struct.pack(">H", 257)))[0, :, 0].tolist() == [0, 255, 1, 255]


def test_transparent_colour_of_16_bits_a_channel_is_refused():
    png = png_with_bits(np.array([[[0, 65535, 3]]], dtype=np.uint16), 16, 2)
    with pytest.raises(ImageError, match="16 bits a channel with one transparent colour cannot be shown right"):
        decode_image(with_chunk(png, b"tRNS", bytes(6)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [0, 1, -1])
def test_transparent_grey_of_few_bits(bits, transparent):
    most = (1 << bits) - 1
    greys = [0, 1, most]
    packed = int("".join(f"{grey:0{bits}b}" for grey in greys).ljust(-(-3 * bits // 8) * 8, "0"), 2)
    line = b"\0" + packed.to_bytes(-(-3 * bits // 8), "big")
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0)
    png += struct.pack(">I", zlib.crc32(png[12:]))
    png = with_chunk(with_chunk(png, b"IEND", b""), b"IDAT", zlib.compress(line))
    seen = decode_image(with_chunk(png, b"tRNS", struct.pack(">H", greys[transparent])))[0, :, 0].tolist()
    assert seen == [255 if grey == greys[transparent] else grey * 255 // most for grey in greys]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_tiffs_of_all_kinds(compression, byteorder, kind, photometric):
    white = {"uint8": 255, "float32": 1}.get(kind, 32767 if kind == "int16" else 65535)
    values = (np.array([[0, 0.25, 0.5, 1]]) * white).astype(kind)
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, values, photometric=photometric, compression=compression, byteorder=byteorder)
    expected = np.rint(values[0].astype(float) * 255 / (65535 if kind == "int16" else white))
    if photometric == "miniswhite":
        expected = 255 - expected
    try:
        seen = decode_image(tiff.getvalue())[0, :, 0]
    except ImageError as error:
        assert photometric == "miniswhite"
        assert "not an image in any format" in str(error)
        assert kind not in ("uint8", "float32")
        assert (kind, byteorder) != ("uint16", "<")
    else:
        np.testing.assert_array_equal(seen, expected)


def test_12_bits_and_unsigned_32_bits():
    twelve = io.BytesIO()
    Image.fromarray(np.array([[0, 2048, 4095, 1]], dtype=np.uint16)).save(twelve, "TIFF")
    values = np.array([[0, 2**31, 2**32 - 1, 5]], dtype=np.uint32)
    wide = io.BytesIO()
    tifffile.imwrite(wide, values, photometric="minisblack")
    assert decode_image(wide.getvalue())[0, :, 0].tolist() == [0, 128, 255, 0]
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x01])  # 0, 2048, 4095, 1
    header = struct.pack("<2sHI", b"II", 42, 8)
    entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 1, 279: len(packed)}
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in entries.items())
    assert decode_image(header + directory + bytes(4) + packed)[0, :, 0].tolist() == [0, 128, 255, 0]


def test_float_images():
    unit = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert decode_image(encoded(Image.fromarray(unit), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    wide = np.array([[-100.0, 0.0, 300.0, np.nan]], dtype=np.float32)
    assert decode_image(encoded(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 64, 255, 64]


def test_truncated_at_any_length_is_an_error_and_nothing_else():
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")
    for length in range(1, len(whole) - 2, 97):
        for min_side in (None, 8):
            with pytest.raises(ImageError):
                decode_image(whole[:length], min_side=min_side)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("min_side", [None, 40])
def test_jpeg_that_lacks_only_its_end_marker(caplog, progressive, min_side):
    caplog.set_level("INFO")
    noise = np.random.default_rng(0).integers(0, 255, (160, 120, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
    whole = decode_image(jpeg, min_side=min_side)
    for missing in (1, 2):
        caplog.clear()
        np.testing.assert_array_equal(decode_image(jpeg[:-missing], min_side=min_side), whole)
        assert "the end marker is missing" in caplog.text
    for missing in (*range(12, 40, 3), 100, 1000):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(jpeg[:-missing], min_side=min_side)


def test_png_with_large_or_damaged_metadata(caplog):
    caplog.set_level("INFO")
    text = PngInfo()
    text.add_text("long", "x" * 3_000_000, zip=True)
    picture = Image.fromarray(gradient())
    plain = encoded(picture, "PNG")
    for png in (
        encoded(picture, "PNG", pnginfo=text),
        encoded(picture, "PNG", icc_profile=bytes(3_000_000)),
        with_chunk(plain, b"zTXt", b"a\0\0not compressed"),
        with_chunk(plain, b"iCCP", b"a\0\0not compressed"),
        with_chunk(plain, b"tEXt", b"a\0b", checksum=1),
        with_chunk(plain, b"pHYs", b"1"),
        with_chunk(plain, b"xxXx", b"unknown", checksum=1),
    ):
        np.testing.assert_array_equal(decode_image(png), gradient())
    assert "decoded without its metadata" in caplog.text
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture, "PNG", pnginfo=text, exif=exif)
    np.testing.assert_array_equal(decode_image(turned), np.rot90(gradient(), -1))
    for damaged in (with_chunk(plain, b"IDAT", b"x"), turned[: len(turned) - len(plain) // 2]):
        with pytest.raises(ImageError):
            decode_image(damaged)


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000", "PCX"])
def test_half_a_file_is_an_error(format):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(pixels), format)
    for share in (0.02, 0.5, 0.95):
        with pytest.raises(ImageError):
            decode_image(whole[: int(share * len(whole))])


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "PCX", "ICO"])
def test_flipped_bytes_decode_or_say_so(format):
    whole = encoded(Image.fromarray(gradient(32, 32)), format)
    generator = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 3):
            data[place] = generator.integers(0, 256)
        try:
            assert decode_image(bytes(data), max_pixels=1_000_000).shape[2] == 3
        except ImageError as error:
            assert str(error).startswith(f"image of {len(data)} bytes: ")


def test_pixel_cap_is_checked_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    # 30,000 x 30,000 pixels are announced and none are there: decoding would fail in another way.
    bomb = png_with_bits(np.zeros((1, 1)), 8, 2).replace(struct.pack(">II", 1, 1), struct.pack(">II", 9000, 9000))
    header = bomb[12:29]
    path.write_bytes(bomb[:29] + struct.pack(">I", zlib.crc32(header)) + bomb[33:])
    with pytest.raises(ImageError, match=r"too large: 9000 x 9000 is 81.0 megapixels; at most 50.0"):
        decode_image(path, max_pixels=50_000_000)
    image = encoded(Image.new("L", (100, 10)), "PNG")
    assert decode_image(image, max_pixels=1000).shape == (10, 100, 3)
    with pytest.raises(ImageError, match="megapixels"):
        decode_image(image, max_pixels=999)


def test_pixel_cap_counts_what_is_decoded():
    jpeg = encoded(Image.new("RGB", (1200, 900), "red"), "JPEG")
    pixels, size = decode_with_size(jpeg, min_side=100, max_pixels=150 * 113 * 7)
    assert (pixels.shape, size) == ((113, 150, 3), (1200, 900))
    with pytest.raises(ImageError, match=r"too large: 1200 x 900 is 1.1 megapixels; at most 1.0"):
        decode_image(jpeg, max_pixels=1_000_000)
    assert decode_image(jpeg, max_pixels=1_080_000).shape == (900, 1200, 3)
    # Reading what is left out takes time all the same.
    with pytest.raises(ImageError, match=r"too large: 1200 x 900 is 1.1 megapixels; at most 0.2"):
        decode_image(jpeg, min_side=100, max_pixels=20_000)


def test_jpeg_of_100_megapixels_costs_what_it_is_reduced_to():
    jpeg = encoded(Image.new("L", (12_000, 9_000), 77), "JPEG")
    pixels, size = decode_with_size(jpeg, min_side=512)
    assert (pixels.shape, size) == ((1125, 1500, 3), (12_000, 9_000))
    assert (pixels == 77).all()


def test_strangers_pictures():
    picture = Image.fromarray(gradient())
    for format in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP"):
        assert decode_image(encoded(picture, format), limits=STRANGERS_PICTURES).shape == (24, 40, 3)
    for format in ("TIFF", "QOI", "PPM", "JPEG2000"):
        assert decode_image(encoded(picture, format)).shape == (24, 40, 3)
        with pytest.raises(
            ImageError, match="not in a format that is taken here: AVIF, BMP, GIF, HEIF, JPEG, MPO, PNG"
        ):
            decode_image(encoded(picture, format), limits=STRANGERS_PICTURES)
    bomb = png_with_bits(np.zeros((1, 1)), 8, 2).replace(struct.pack(">II", 1, 1), struct.pack(">II", 9000, 9000))
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    with pytest.raises(ImageError, match="too large"):
        decode_image(bomb, limits=STRANGERS_PICTURES)


def test_decoding_waits_for_memory_and_then_refuses(monkeypatch):
    budget = MemoryBudget(1 << 30)
    monkeypatch.setattr(decode, "decoding_memory", budget)
    png = encoded(Image.fromarray(gradient()), "PNG")
    with ThreadPoolExecutor(1) as pool:
        with budget.reserve(1 << 30, 0):
            with pytest.raises(ImageError, match="too much is decoded at the same time"):
                decode_image(png, limits=DecodeLimits(max_wait=0.01))
            waiting = pool.submit(decode_image, png)
        assert waiting.result().shape == (24, 40, 3)


def test_pillows_own_limit_is_an_image_error():
    bomb = png_with_bits(np.zeros((1, 1)), 8, 2).replace(struct.pack(">II", 1, 1), struct.pack(">II", 60000, 60000))
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    with pytest.raises(ImageError, match="too large"):
        decode_image(bomb)


def test_errors_name_the_file_and_the_reason(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    text = tmp_path / "text.jpg"
    text.write_text("not pixels")
    for path, reason in [
        (empty, "empty"),
        (text, "not an image"),
        (tmp_path / "missing.jpg", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / ("long" * 100), "too long"),
    ]:
        with pytest.raises(ImageError, match=reason) as caught:
            decode_image(path)
        assert caught.value.name == str(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match="null"):
        decode_image("a\0b.png")


def test_postscript_is_not_handed_to_another_program():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ImageError, match="not an image"):
        decode_image(postscript)


def test_extensions_are_those_of_readable_formats():
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".bmp"} <= extensions()
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt", ""} & extensions()


@pytest.mark.parametrize("content", [b"x", b"xy", b"xyz", b"xyzt"])
def test_a_file_of_few_bytes_is_no_image(content):
    with pytest.raises(ImageError, match="not an image in any format that can be read"):
        decode_image(content)
