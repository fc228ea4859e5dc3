"""Pictures and label maps: what is read is what is stored, and nothing in a file crashes or fills the memory."""

from __future__ import annotations

import io
import logging
import os
import random
import re
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests import media_clips
from vidgen import durable
from vidgen.errors import InputError, OutputError
from vidgen.media import images

IDS = np.array([[0, 7, 119, 255], [1, 2, 3, 4]], np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def palette_image(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette([255 - value // 3 for value in range(768)])
    return image


def with_orientation(pixels: np.ndarray, orientation: int) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(pixels), exif


def refusal(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value)


# Pictures


def test_grey_is_replicated(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    assert np.array_equal(images.read_picture(path), np.repeat(IDS[:, :, None], 3, axis=2))


def test_16_bits_are_scaled_over_their_full_range(tmp_path):
    wide = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert images.read_picture(save(tmp_path / "a.png", wide))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_colours_are_applied_to_pictures(tmp_path):
    path = save(tmp_path / "a.png", palette_image(IDS))
    assert images.read_picture(path)[0, 1].tolist() == [255 - 21 // 3, 255 - 22 // 3, 255 - 23 // 3]


def test_transparency_is_laid_over_white_and_mentioned_once_per_folder(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    for name in ("a.png", "b.png"):
        result = images.read_picture(save(tmp_path / name, pixels))
        assert result[0].tolist() == [[200, 100, 50], [255, 255, 255], [227, 177, 152]]
    assert [record.message for record in caplog.records if "transparent" in record.message] == [
        f"{tmp_path}: transparent parts of pictures are laid over white"
    ]


@pytest.mark.parametrize(
    ("orientation", "sideways", "rows_reversed", "columns_reversed"),
    [(1, 0, 0, 0), (2, 0, 0, 1), (3, 0, 1, 1), (4, 0, 1, 0), (5, 1, 0, 0), (6, 1, 1, 0), (7, 1, 1, 1), (8, 1, 0, 1)],
)
def test_photos_stand_upright_and_their_size_is_known_from_the_header(
    tmp_path, orientation, sideways, rows_reversed, columns_reversed
):
    """Exif 2.32 says on which side of the scene the first stored row and the first stored column lie."""
    upright = media_clips.smooth_frames(1, 20, 30)[0]
    stored = upright.swapaxes(0, 1) if sideways else upright
    stored = stored[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
    image, exif = with_orientation(np.ascontiguousarray(stored), orientation)
    path = save(tmp_path / "a.jpg", image, exif=exif, quality=95)
    assert images.read_size(path) == (20, 30)
    assert media_clips.psnr(images.read_picture(path), upright) > 25


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.bmp", "a.tif", "a.ppm", "a.png"])
def test_every_format_is_read(tmp_path, name):
    pixels = media_clips.smooth_frames(1)[0]
    assert media_clips.psnr(images.read_picture(save(tmp_path / name, pixels)), pixels) > 30


@pytest.mark.parametrize(
    ("values", "message"), [(np.ones((4, 4), np.float32), "floating point"), (np.full((4, 4), 70000, np.int32), "16 bits hold")]
)
def test_values_beyond_16_bits_are_not_clipped_in_silence(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        images.read_picture(save(tmp_path / "a.tif", values))


def test_cmyk_photos_become_rgb(tmp_path):
    pixels = np.full((8, 8, 3), (200, 60, 20), np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(pixels).convert("CMYK"), quality=95)
    assert np.abs(images.read_picture(path).astype(int) - pixels).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_line_art_on_transparent_ground_is_black_on_white(tmp_path, mode):
    pixels = np.zeros((6, 6, 4), np.uint8)
    pixels[2] = (0, 0, 0, 255)
    image = Image.fromarray(pixels)
    path = save(tmp_path / "a.png", image if mode == "RGBA" else image.convert(mode))
    assert images.read_picture(path)[:, :, 0].tolist() == [[0 if row == 2 else 255] * 6 for row in range(6)]


def test_a_picture_of_which_white_ground_leaves_nothing_is_mentioned(tmp_path, caplog):
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[1:, :, 3] = 0
    for name, picture in (("white.png", pixels), ("empty.png", np.zeros((4, 4, 4), np.uint8))):
        assert (images.read_picture(save(tmp_path / name, picture)) == 255).all()
        assert f"{tmp_path / name}: is laid over white, and nothing of it is left" in caplog.messages


def profile_with(description: bytes) -> bytes:
    """The sRGB profile, called otherwise, with its red and blue primaries exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * index : 136 + 12 * index]): 132 + 12 * index for index in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(data).replace("sRGB".encode("utf-16-be"), description.decode().encode("utf-16-be"))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_embedded_color_profiles_are_converted_to_srgb_and_said_once(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    pixels = np.full((16, 16, 3), (220, 60, 20), np.uint8)
    options = {"quality": 100} if name.endswith("g") else {}
    for copy in ("1", "2"):
        path = save(tmp_path / f"{copy}{name}", pixels, icc_profile=profile_with(b"GRBs"), **options)
        assert np.abs(images.read_picture(path).astype(int) - (20, 60, 220)).max() < 8
    assert [message for message in caplog.messages if "sRGB" in message] == [
        f"{tmp_path}: colors are converted from GRBs built-in to sRGB"
    ]


def test_profiles_keep_opacity_and_orientation_and_srgb_or_a_damaged_one_changes_nothing(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
    path = save(tmp_path / "a.png", pixels, icc_profile=profile_with(b"GRBs"))
    assert np.array_equal(images.read_with_opacity(path)[1], pixels[..., 3])
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("srgb.png", srgb), ("bad.png", b"not a profile")):
        assert np.array_equal(images.read_picture(save(tmp_path / name, pixels[..., :3], icc_profile=profile)), pixels[..., :3])
    assert "cannot be used" in caplog.text


def test_gray_and_cmyk_pictures_are_converted_by_their_profile(tmp_path):
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save(tmp_path / "a.png", gray, icc_profile=b"x" * 200)
    assert np.array_equal(images.read_picture(path)[..., 0], gray)


# Labels


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.pgm"])
def test_grey_labels_are_their_levels(tmp_path, name):
    labels = images.read_labels(save(tmp_path / name, IDS))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, IDS)


def test_palette_labels_are_indices_not_colours(tmp_path):
    assert np.array_equal(images.read_labels(save(tmp_path / "a.png", palette_image(IDS))), IDS)


@pytest.mark.parametrize(("bit_depth", "byte", "ids"), [(1, 0b00011011, 8), (2, 0b00011011, 4), (4, 0b00011011, 2)])
def test_labels_of_fewer_than_8_bits_are_not_stretched(tmp_path, bit_depth, byte, ids):
    path = tmp_path / "a.png"
    path.write_bytes(media_clips.png_bytes(ids, 1, bit_depth, 0, bytes([0, byte])))
    expected = {1: [0, 0, 0, 1, 1, 0, 1, 1], 2: [0, 1, 2, 3], 4: [1, 11]}[bit_depth]
    assert images.read_labels(path).tolist() == [expected]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_instance_ids_are_exact(tmp_path, name):
    ids = np.array([[0, 24, 26003, 65535]], np.uint16)
    labels = images.read_labels(save(tmp_path / name, ids))
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, ids)


def test_colour_coded_labels_are_exact(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(images.read_labels(save(tmp_path / "a.png", pixels)), pixels)
    opaque = np.concatenate([pixels, np.full((9, 7, 1), 253, np.uint8)], axis=2)
    assert np.array_equal(images.read_labels(save(tmp_path / "b.png", opaque)), pixels)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P5 3 1 15\n\0\x07\x0f", [0, 7, 15]),
        (b"P2\n# comment\n3 1\n100\n0 7 100", [0, 7, 100]),
        (b"P5 3 1 1000\n\0\0\x01\x02\x03\xe8", [0, 258, 1000]),
        (b"P5 3 1 255\n\0\x07\xff", [0, 7, 255]),
        (b"P5 3 1 65535\n\0\0\x01\x02\xff\xff", [0, 258, 65535]),
    ],
)
def test_levels_of_pgm_files_are_never_scaled(tmp_path, content, expected):
    (tmp_path / "a.pgm").write_bytes(content)
    assert images.read_labels(tmp_path / "a.pgm").tolist() == [expected]


@pytest.mark.parametrize("top", [1, 2, 3, 7, 34, 100, 127, 128, 200, 254, 256, 300, 1023, 4095, 60000, 65534])
def test_every_level_of_every_pgm_depth_survives(tmp_path, top):
    levels = np.arange(top + 1)
    content = b"P5 %d 1 %d\n" % (top + 1, top) + levels.astype(np.uint8 if top < 256 else ">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(content)
    assert np.array_equal(images.read_labels(tmp_path / "a.pgm")[0], levels)


def tiff(bits: int, photometric: int, data: bytes, samples: int = 1) -> bytes:
    """An uncompressed TIFF of 4 x 1 pixels."""
    entries = [(256, 3, 1, 4), (257, 3, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    entries += [(273, 4, 1, 200), (277, 3, 1, samples), (278, 3, 1, 1), (279, 4, 1, len(data))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return (b"II*\0\x08\0\0\0" + directory).ljust(200, b"\0") + data


@pytest.mark.parametrize(("bits", "data"), [(2, b"\x1b"), (4, b"\x01\x23"), (8, bytes(range(4)))])
def test_levels_of_shallow_tiff_files_are_never_scaled(tmp_path, bits, data):
    (tmp_path / "a.tif").write_bytes(tiff(bits, 1, data))
    assert images.read_labels(tmp_path / "a.tif").tolist() == [[0, 1, 2, 3]]


def bitmap(bits: int, colors: list[tuple[int, int, int]], row: bytes, width: int = 4) -> bytes:
    palette = b"".join(bytes([blue, green, red, 0]) for red, green, blue in colors)
    start, data = 54 + len(palette), row.ljust(-(-len(row) // 4) * 4, b"\0")
    header = struct.pack("<IHHI", start + len(data), 0, 0, start)
    return b"BM" + header + struct.pack("<IiiHHIIiiII", 40, width, 1, 1, bits, 0, len(data), 0, 0, len(colors), 0) + palette + data


def test_palettes_of_bmp_files_give_their_indices(tmp_path):
    (tmp_path / "a.bmp").write_bytes(bitmap(4, [(17 * level, 0, 9) for level in range(16)], b"\x01\x2f"))
    assert images.read_labels(tmp_path / "a.bmp").tolist() == [[0, 1, 2, 15]]


def falsified_label_files() -> dict[str, tuple[bytes, str]]:
    return {
        "rgb16.png": (media_clips.png_bytes(1, 1, 16, 2, b"\0" + b"\0\7" * 3), "colors of 16 bits per channel"),
        "rgba16.png": (media_clips.png_bytes(1, 1, 16, 6, b"\0" + b"\0\7" * 4), "colors of 16 bits per channel"),
        "white8.tif": (tiff(8, 0, bytes(range(4))), "min-is-white"),
        "white4.tif": (tiff(4, 0, b"\x01\x23"), "min-is-white"),
        "bits.pgm": (b"P4 8 1\n\xf0", "a bitmap whose ones are black"),
        "dark.ppm": (b"P6 1 1 15\n\1\2\3", r"colors of 0\.\.15"),
        "two.bmp": (bitmap(4, [(0, 0, 0), (255, 255, 255)], b"\x01\x23"), "BMP of 4 bits"),
        "rgb565.bmp": (bitmap(16, [], bytes(8)), "BMP of 16 bits"),
    }


@pytest.mark.parametrize("name", falsified_label_files())
def test_ids_that_decoding_would_change_are_refused_by_name(tmp_path, name):
    content, message = falsified_label_files()[name]
    (tmp_path / name).write_bytes(content)
    assert re.search(f"{name}: .*{message}", refusal(images.read_labels, tmp_path / name))


def refused_label_files(folder: Path) -> dict[str, tuple[Path, str]]:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[0, 0, 3] = 200
    turned, exif = with_orientation(IDS, 6)
    return {
        "jpeg": (save(folder / "jpeg.jpg", IDS), "JPEG blurs label ids"),
        "jpeg that calls itself png": (save(folder / "jpeg.png", IDS, format="JPEG"), "JPEG blurs label ids"),
        "webp": (save(folder / "a.webp", IDS.repeat(4, 0)), "WEBP blurs label ids"),
        "jpeg inside tiff": (save(folder / "jpeg.tif", IDS.repeat(8, 0).repeat(8, 1), compression="jpeg"), "blurs label ids"),
        "transparent parts": (save(folder / "rgba.png", rgba), "transparent parts"),
        "gray with alpha": (save(folder / "la.png", Image.fromarray(IDS).convert("LA")), "mode LA"),
        "cmyk": (save(folder / "cmyk.tif", Image.fromarray(IDS).convert("CMYK")), "mode CMYK"),
        "floating point": (save(folder / "float.tif", np.ones((4, 4), np.float32)), "mode F"),
        "turned by exif": (save(folder / "turned.png", turned, exif=exif), "EXIF rotation"),
        "32 bits": (save(folder / "wide.tif", np.full((4, 4), 70000, np.int32)), "values 70000..70000"),
        "negative": (save(folder / "negative.tif", np.full((4, 4), -1, np.int32)), "values -1..-1"),
    }


def test_what_cannot_hold_exact_labels_is_refused_with_the_reason(tmp_path):
    for case, (path, message) in refused_label_files(tmp_path).items():
        assert re.search(message, refusal(images.read_labels, path)), case


# Damage, bombs, names


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    good = images.encode_png(media_clips.smooth_frames(1)[0])
    jpeg = io.BytesIO()
    Image.fromarray(media_clips.smooth_frames(1)[0]).save(jpeg, "JPEG")
    contents = {
        "short_idat.png": (media_clips.png_bytes(64, 64, 8, 2, b"\0" * 10), "damaged"),
        "tiny.png": (good[:57], "damaged|not a picture"),
        "half.png": (good[: len(good) // 2], "damaged"),
        "half.jpg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "damaged"),
        "flipped.png": (good[:200] + bytes([good[200] ^ 1]) + good[201:], "damaged"),
        "text.png": (b"hello, world", "not a picture"),
        "page.jpg": (b"<!DOCTYPE html><html></html>", "not a picture"),
        "empty.png": (b"", "0 bytes"),
        "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "not a picture"),
        "huge.png": (
            struct.pack(">8sIIIBBBBB", b"\x89PNG\r\n\x1a\n", 13, 0x49484452, 99999, 8, 2, 0, 0, 0),
            "damaged|not a picture|million",
        ),
    }
    files = {}
    for name, (content, message) in contents.items():
        (folder / name).write_bytes(content)
        files[name] = (folder / name, message)
    (folder / "folder.png").mkdir()
    return {**files, "folder": (folder / "folder.png", "is a folder"), "missing": (folder / "absent.png", "not found")}


@pytest.mark.parametrize("read", [images.read_picture, images.read_labels])
def test_damaged_and_foreign_files_are_input_errors_that_name_the_file(tmp_path, read):
    for case, (path, message) in bad_files(tmp_path).items():
        found = refusal(read, path)
        assert re.search(message, found), case
        assert str(path) in found, case


def test_animations_are_no_pictures(tmp_path):
    first, second = (Image.fromarray(frame) for frame in media_clips.smooth_frames(2))
    for name in ("a.webp", "a.png", "a.tif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        with pytest.raises(InputError, match="several pictures"):
            images.read_picture(tmp_path / name)


def test_a_label_png_with_any_flipped_bit_is_never_read_as_other_labels(tmp_path):
    labels = media_clips.label_frames(1)[0]
    content = images.encode_png(labels)
    path = tmp_path / "a.png"
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        try:
            assert np.array_equal(images.read_labels(path), labels)
        except InputError:
            refused += 1
    assert refused > 250


def test_a_bomb_is_refused_from_its_header_without_decoding(tmp_path):
    save(tmp_path / "bomb.png", Image.new("1", (20000, 20000)))
    save(tmp_path / "large.png", Image.new("1", (9000, 8000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("bomb.png", "large.png"):
        for read in (images.read_picture, images.read_labels, images.read_size):
            with pytest.raises(InputError, match="million pixels"):
                read(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", b"-rf.png", b"a b.png", b"%03d.png", b"$(touch x).png", b"http:x.png", "日本.png".encode()]
)
def test_any_name_the_system_allows_is_read_and_written(tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    images.write_png(path, IDS)
    assert np.array_equal(images.read_labels(path), IDS)


# Writing


@pytest.mark.parametrize(
    "pixels", [IDS, IDS.astype(np.uint16) * 200, media_clips.smooth_frames(1)[0]], ids=["ids", "wide ids", "picture"]
)
def test_a_written_png_reads_back_bit_by_bit(tmp_path, pixels):
    images.write_png(tmp_path / "a.png", pixels)
    back = images.read_labels(tmp_path / "a.png")
    assert back.dtype == pixels.dtype
    assert np.array_equal(back, pixels)


def test_a_png_is_written_flushed_renamed_and_its_folder_flushed_in_this_order(tmp_path, monkeypatch):
    operations = media_clips.FaultyOperations(-1, None)
    monkeypatch.setattr(durable, "operations", operations)
    images.write_png(tmp_path / "a.png", IDS)
    steps = [name for name, _ in operations.log if name in ("write", "sync", "replace")]
    assert steps == ["write", "sync", "replace", "sync"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("short", [False, True])
def test_a_png_write_that_fails_anywhere_leaves_the_old_or_the_new_and_no_litter(tmp_path, monkeypatch, error, short):
    old, new = IDS, IDS[::-1].copy()
    path = tmp_path / "a.png"
    for fail_at in range(20):
        monkeypatch.setattr(durable, "operations", durable.Operations())
        images.write_png(path, old)
        operations = media_clips.FaultyOperations(fail_at, error, short)
        monkeypatch.setattr(durable, "operations", operations)
        try:
            images.write_png(path, new)
            failed = False
        except OutputError:
            failed = True
        found = images.read_labels(path)
        assert np.array_equal(found, old) or np.array_equal(found, new)
        assert os.listdir(tmp_path) == ["a.png"]
        if not failed:
            assert np.array_equal(found, new)
            break
    assert fail_at > 4
