"""Video files: every frame, time, color and sound that is stored comes out, and what is written reads back."""

from __future__ import annotations

import hashlib
import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests import media_clips
from vidgen.errors import InputError
from vidgen.media import conditions, frames, video

VARIABLE_TIMES = [0, 3000, 4500, 12000, 12001, 30000, 33003, 90000, 93000, 96000]


def read(path: Path, **options) -> list[frames.Frame]:
    return list(frames.open_source(path, **options))


def pictures(path: Path) -> np.ndarray:
    return np.stack([frame.pixels for frame in read(path)])


def seconds(source: frames.FrameSource) -> list[Fraction]:
    return [frame.pts * source.time_base for frame in source]


def write(
    path: Path, pixels: list[np.ndarray], pts: list[int] | None = None, time_base: Fraction = Fraction(1, 25), **options
) -> Path:
    with frames.open_sink(path, time_base=time_base, frame_rate=Fraction(25), **options) as sink:
        for index, frame in enumerate(pixels):
            sink.write(frame, index if pts is None else pts[index])
    return path


# Reading: colors


@pytest.mark.parametrize("color_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["601", "709"])
@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv444p10le", "yuv420p", "yuv420p10le"])
def test_colours_come_back_within_2_levels_whatever_the_file_uses(tmp_path, pixel_format, matrix, color_range):
    originals = media_clips.smooth_frames(2)
    path = media_clips.write_clip(
        tmp_path / "a.mkv", originals, codec="ffv1", pixel_format=pixel_format, matrix=matrix, color_range=color_range
    )
    inner = np.s_[:, 4:-4, 4:-4]
    assert np.abs(pictures(path).astype(int) - np.stack(originals))[inner].max() <= (2 if "444" in pixel_format else 4)
    assert media_clips.psnr(pictures(path)[inner], np.stack(originals)[inner]) > 48


@pytest.mark.parametrize(("height", "width", "matrix"), [(480, 640, "601"), (720, 1280, "709")])
def test_untagged_colours_are_those_that_players_assume(tmp_path, height, width, matrix):
    original = np.full((height, width, 3), (200, 40, 90), np.uint8)
    path = media_clips.write_clip(tmp_path / "a.mkv", [original], codec="ffv1", pixel_format="yuv444p", matrix=matrix, tagged=False)
    assert np.abs(pictures(path)[0].astype(int) - original).max() <= 2


GOLDEN = {
    ("yuv444p", "601", "full"): "a9eed460ce68",
    ("yuv444p", "709", "limited"): "14fce89e51fa",
    ("yuv420p", "601", "limited"): "38e49b554d58",
    ("yuv420p", "709", "full"): "ab443e83de63",
    ("yuv420p10le", "709", "limited"): "284cb7ac9556",
    ("yuv444p10le", "601", "limited"): "bfffba7c7cdc",
}


@pytest.mark.skipif(av.library_versions["libswscale"][0] != 9, reason="the digests are those of libswscale 9")
@pytest.mark.parametrize("kind", GOLDEN)
def test_decoded_pixels_are_the_same_on_every_machine(tmp_path, kind):
    pixel_format, matrix, color_range = kind
    path = media_clips.write_clip(
        tmp_path / "a.mkv",
        media_clips.smooth_frames(3),
        codec="ffv1",
        pixel_format=pixel_format,
        matrix=matrix,
        color_range=color_range,
    )
    assert hashlib.sha256(pictures(path).tobytes()).hexdigest()[:12] == GOLDEN[kind]


def test_transparent_video_is_laid_over_white(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rgba = np.full((16, 16, 4), (200, 100, 50, 255), np.uint8)
    rgba[:8, :, 3] = 0
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="bgra")))
        container.mux(stream.encode(None))
    result = pictures(tmp_path / "a.mkv")[0]
    assert (result[:8] == 255).all()
    assert (result[8:] == (200, 100, 50)).all()
    assert caplog.messages == [f"{tmp_path / 'a.mkv'}: transparent parts are laid over white"]
    with frames.open_sink(tmp_path / "opaque.gif", time_base=Fraction(1, 10), frame_rate=Fraction(10)) as sink:
        for index, opaque in enumerate(media_clips.smooth_frames(2)):
            sink.write(opaque, index)
    assert len(pictures(tmp_path / "opaque.gif")) == 2
    assert len(caplog.messages) == 1


# Reading: orientation, sizes


@pytest.mark.parametrize("angle", [0, 90, 180, -90])
@pytest.mark.parametrize(("across", "down"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_turned_and_mirrored_clips_stand_upright(tmp_path, angle, across, down, suffix):
    originals = media_clips.smooth_frames(2, 32, 48)
    path = media_clips.write_clip(
        tmp_path / f"a{suffix}",
        originals,
        codec="libx264rgb",
        pixel_format="rgb24",
        codec_options={"qp": "0"},
        orientation=(angle, across, down),
    )
    expected = np.rot90(np.stack(originals), angle // 90, axes=(1, 2))
    expected = np.flip(expected, 2) if across else expected
    expected = np.flip(expected, 1) if down else expected
    assert frames.open_source(path).size == expected.shape[1:3]
    assert np.array_equal(pictures(path), expected)


def test_a_clip_whose_size_changes_is_refused_at_that_frame(tmp_path):
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, pixels in enumerate(media_clips.smooth_frames(3)):
            frame = media_clips.video_frame(pixels, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        other = av.CodecContext.create("libvpx-vp9", "w")
        other.width, other.height, other.pix_fmt, other.time_base = 32, 32, "yuv420p", Fraction(1, 25)
        frame = media_clips.video_frame(media_clips.smooth_frames(1, 32, 32)[0], "yuv420p")
        frame.pts, frame.time_base = 3, Fraction(1, 25)
        for packet in [*other.encode(frame), *other.encode(None)]:
            packet.stream = stream
            container.mux(packet)
    with pytest.raises(InputError, match=r"frame 3: 32x32, but the frames before are 64x48"):
        read(path)


# Reading: times


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_times_are_read_exactly(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    time_base = Fraction(1, 90000)
    media_clips.write_clip(path, media_clips.smooth_frames(10), pts=VARIABLE_TIMES, time_base=time_base)
    source = frames.open_source(path)
    errors = [abs(found - pts * time_base) for found, pts in zip(seconds(source), VARIABLE_TIMES, strict=True)]
    assert max(errors) <= source.time_base
    assert [frame.pts for frame in source.read(3, 8)] == [frame.pts for frame in source][3:8]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
def test_variable_times_survive_reading_and_writing(tmp_path, name):
    path = media_clips.write_clip(
        tmp_path / "in.mp4",
        media_clips.smooth_frames(8),
        pts=[0, 3000, 4500, 12000, 30000, 33003, 90000, 93000],
        time_base=Fraction(1, 90000),
    )
    source = frames.open_source(path)
    with frames.open_sink(tmp_path / name, time_base=source.time_base, frame_rate=source.frame_rate) as sink:
        for frame in source:
            sink.write(frame.pixels, frame.pts)
    written = frames.open_source(tmp_path / name)
    errors = [abs(before - after) for before, after in zip(seconds(source), seconds(written), strict=True)]
    assert max(errors) <= written.time_base


def test_frames_that_an_edit_list_hides_are_not_read(tmp_path):
    originals = media_clips.smooth_frames(30)
    path = media_clips.write_clip(tmp_path / "a.mp4", originals, pts=list(range(-10, 20)))
    source = frames.open_source(path)
    assert source.num_frames == len(list(source)) == 20
    assert source.read(0, 1)[0].pts == 0
    assert media_clips.psnr(pictures(path)[0], originals[10]) > 30


def test_a_clip_cut_between_keyframes_starts_at_its_first_complete_frame(tmp_path):
    originals = media_clips.smooth_frames(60)
    options = {"g": "15", "bf": "2", "x264-params": "open-gop=1:scenecut=0:keyint=15:min-keyint=15"}
    whole = media_clips.write_clip(tmp_path / "whole.mkv", originals, codec_options=options)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mkv"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        started = False
        for packet in source.demux(video=0):
            started = started or (packet.is_keyframe and packet.pts is not None and packet.pts > 500)
            if started and packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    source = frames.open_source(tmp_path / "cut.mkv")
    found = list(source)
    assert source.count() == len(found)
    first = round(found[0].pts * source.time_base * 25)
    assert first >= 13
    assert [frame.pts for frame in source.read(0, len(found))] == [frame.pts for frame in found]
    assert all(media_clips.psnr(frame.pixels, originals[first + index]) > 30 for index, frame in enumerate(found))


KINDS = {
    "h264.mp4": {},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "codec_options": {"g": "10"}},
    "opengop.mkv": {"codec_options": {"g": "8", "x264-params": "open-gop=1:scenecut=0"}},
    "interlaced.mp4": {"codec_options": {"flags": "+ildct+ilme"}},
    "sound.mkv": {"with_sound": True},
    "vp8.webm": {"codec": "libvpx", "codec_options": {"crf": "4", "b": "2M"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4", "codec_options": {"bf": "2", "b": "4M"}},
    "ffv1.mkv": {"codec": "ffv1", "pixel_format": "bgr0"},
    "picture.gif": {"codec": "gif", "pixel_format": "rgb8"},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_read_and_any_frame_can_be_read_alone(tmp_path, name):
    originals = media_clips.smooth_frames(25)
    source = frames.open_source(media_clips.write_clip(tmp_path / name, originals, **KINDS[name]))
    found = list(source)
    assert len(found) == source.num_frames == source.count() == 25
    assert source.frame_rate == 25
    if name != "picture.gif":
        assert min(media_clips.psnr(frame.pixels, pixels) for frame, pixels in zip(found, originals, strict=True)) > 25
    for start in (0, 7, 8, 13, 24):
        for alone, frame in zip(source.read(start, min(start + 2, 25)), found[start:], strict=False):
            assert alone.pts == frame.pts
            assert alone.name == frame.name
            assert np.array_equal(alone.pixels, frame.pixels)


def test_vp8_frames_that_only_serve_others_are_not_counted(tmp_path):
    """Bit 4 of a VP8 frame says whether it is shown (RFC 6386 section 9.1); encoders hide frames made for reference."""
    clip = media_clips.write_clip(tmp_path / "in.webm", media_clips.smooth_frames(12), codec="libvpx")
    with av.open(str(clip)) as source, av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(packet for packet in source.demux(video=0) if packet.dts is not None):
            data = bytes(packet)
            hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:] if index == 5 else data)
            hidden.pts, hidden.dts, hidden.time_base, hidden.is_keyframe = (
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.is_keyframe,
            )
            hidden.stream = stream
            container.mux(hidden)
    found = frames.open_source(tmp_path / "a.webm")
    assert len(list(found)) == found.count() == 11
    assert [frame.pts for frame in found.read(4, 8)] == [160, 240, 280, 320]


def test_a_source_is_read_again_from_its_start_also_after_it_was_left_half_way(tmp_path):
    source = frames.open_source(media_clips.write_clip(tmp_path / "a.mp4", media_clips.smooth_frames(10)))
    for _ in range(2):
        for frame in source:
            if frame.pts > 0:
                break
    assert len(list(source)) == len(list(source)) == 10


# Writing


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.webm"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_lossless_is_bit_exact(tmp_path, name, size):
    originals = media_clips.smooth_frames(4, *size)
    assert np.array_equal(pictures(write(tmp_path / name, originals, quality="lossless")), np.stack(originals))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.webm", "a.gif"])
@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
def test_odd_sizes_are_kept_and_nothing_is_cut_off(tmp_path, name, size):
    originals = media_clips.smooth_frames(4, *size)
    path = write(tmp_path / name, originals)
    assert frames.open_source(path).size == size
    assert media_clips.psnr(pictures(path)[:, -2:, -2:], np.stack(originals)[:, -2:, -2:]) > 25


def test_an_odd_size_is_stored_even_with_its_edge_repeated_for_other_players(tmp_path):
    path = write(tmp_path / "a.mp4", media_clips.smooth_frames(4, 47, 63))
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert stored.shape == (48, 64, 3)
    assert np.abs(stored[-1].astype(int) - stored[-2]).mean() < 8


def test_quality_orders_size_and_faithfulness(tmp_path, data_root):
    folder = frames.open_source(data_root / "camvid/images/0016E5[0:6]")
    originals = [conditions.resize_picture(frame.pixels, (180, 240)) for frame in folder]
    sizes, faithfulness = [], []
    for quality in ("draft", "good", "lossless"):
        path = write(tmp_path / f"{quality}.mkv", originals, quality=quality)
        sizes.append(path.stat().st_size)
        faithfulness.append(media_clips.psnr(pictures(path), np.stack(originals)))
    assert sizes == sorted(sizes)
    assert faithfulness == sorted(faithfulness)
    assert faithfulness[1] > 34


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.webm"])
def test_written_colours_are_tagged_and_flat_areas_keep_them_within_3_levels(tmp_path, name):
    colors = np.random.default_rng(0).integers(20, 236, (3, 4, 3), dtype=np.uint8)
    original = np.kron(colors, np.ones((32, 32, 1))).astype(np.uint8)
    path = write(tmp_path / name, [original] * 2)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
    centres = np.s_[16::32, 16::32]
    assert np.abs(pictures(path)[0][centres].astype(int) - colors).max() <= 3


def test_labels_go_through_ffv1_bit_by_bit(tmp_path):
    for labels in (
        media_clips.label_frames(5),
        media_clips.label_frames(5, num_ids=60000, dtype=np.uint16),
        media_clips.label_frames(5, 47, 63, num_ids=256),
        [pixels // 64 * 64 for pixels in media_clips.smooth_frames(5, 47, 63)],
    ):
        write(tmp_path / "a.mkv", labels, kind="labels", overwrite=True)
        back = [frame.pixels for frame in read(tmp_path / "a.mkv", kind="labels")]
        assert all(
            before.dtype == after.dtype and np.array_equal(before, after) for before, after in zip(labels, back, strict=True)
        )


def test_real_label_maps_go_through_ffv1_bit_by_bit(tmp_path, data_root):
    for where in ("camvid/labels/0016E5[0:8]", "face/labels/clip[0:8]", "cityscapes_stills/instances[0:1]"):
        source = frames.open_source(data_root / where, kind="labels")
        with frames.open_sink(
            tmp_path / "a.mkv", time_base=source.time_base, frame_rate=source.frame_rate, kind="labels", overwrite=True
        ) as sink:
            for frame in source:
                sink.write(frame.pixels, frame.pts)
        back = frames.open_source(tmp_path / "a.mkv", kind="labels")
        assert all(np.array_equal(before.pixels, after.pixels) for before, after in zip(source, back, strict=True))


def test_label_videos_that_blur_ids_are_refused_when_opened(tmp_path):
    lossy = media_clips.write_clip(tmp_path / "a.mp4", media_clips.smooth_frames(3))
    with pytest.raises(InputError, match="h264 blurs label ids") as caught:
        frames.open_source(lossy, kind="labels")
    assert "FFV1" in (caught.value.hint or "")
    converted = media_clips.write_clip(tmp_path / "a.mkv", media_clips.smooth_frames(3), codec="ffv1", pixel_format="yuv444p")
    with pytest.raises(InputError, match="a label video holds yuv444p"):
        read(converted, kind="labels")


@pytest.mark.parametrize(
    ("name", "message"), [("a.mp4", "blurs label ids"), ("a.gif", "blurs label ids"), ("a.avi", "cannot write .avi")]
)
def test_labels_are_not_written_where_they_would_change(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / name, media_clips.label_frames(2), kind="labels")
    assert not list(tmp_path.iterdir())


def test_a_gif_is_never_lossless(tmp_path):
    with pytest.raises(InputError, match="256 colors"):
        write(tmp_path / "a.gif", media_clips.smooth_frames(2), quality="lossless")
    assert not list(tmp_path.iterdir())


def test_a_gif_of_more_than_100_frames_per_second_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match=r"a\.gif: 120 frames per second"),
        frames.open_sink(tmp_path / "a.gif", time_base=Fraction(1, 120), frame_rate=Fraction(120)) as sink,
    ):
        sink.write(media_clips.smooth_frames(1)[0], 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_before_time_0_are_not_lost(tmp_path, name):
    path = write(tmp_path / name, media_clips.smooth_frames(8), pts=list(range(-3, 5)))
    assert len(read(path)) == 8


def test_a_gif_keeps_colours_and_times(tmp_path):
    originals = media_clips.smooth_frames(6)
    path = write(tmp_path / "a.gif", originals)
    source = frames.open_source(path)
    assert seconds(source) == [Fraction(index, 25) for index in range(6)]
    assert media_clips.psnr(pictures(path), np.stack(originals)) > 28


# Sound


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.dts is not None]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_sound_is_copied_packet_by_packet(tmp_path, name):
    path = media_clips.write_clip(tmp_path / "in.mp4", media_clips.smooth_frames(30), with_sound=True)
    source = frames.open_source(path)
    assert source.audio == video.Audio(path)
    with frames.open_sink(tmp_path / name, time_base=source.time_base, frame_rate=source.frame_rate, audio=source.audio) as sink:
        for frame in source:
            sink.write(frame.pixels, frame.pts)
    before, after = sound_packets(path), sound_packets(tmp_path / name)
    assert [data for _, data in before] == [data for _, data in after]
    assert max(abs(first[0] - second[0]) for first, second in zip(before, after, strict=True)) <= Fraction(1, 1000)
    assert len(read(tmp_path / name)) == 30


def test_sound_of_a_shorter_result_ends_with_its_pictures(tmp_path):
    path = media_clips.write_clip(tmp_path / "in.mp4", media_clips.smooth_frames(50), with_sound=True)
    source = frames.open_source(path)
    with frames.open_sink(tmp_path / "a.mp4", time_base=source.time_base, frame_rate=source.frame_rate, audio=source.audio) as sink:
        for frame in source.read(0, 20):
            sink.write(frame.pixels, frame.pts)
    times = [time for time, _ in sound_packets(tmp_path / "a.mp4")]
    assert Fraction(7, 10) < max(times) < Fraction(8, 10)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_cut_clip_starts_at_time_0_with_the_sound_of_that_place(tmp_path, name):
    path = media_clips.write_clip(tmp_path / "in.mp4", media_clips.smooth_frames(30), with_sound=True)
    source = frames.open_source(f"{path}[10:20]")
    assert source.num_frames == 10
    assert [frame.pts for frame in source][:2] == [0, 512]
    with frames.open_sink(tmp_path / name, time_base=source.time_base, frame_rate=source.frame_rate, audio=source.audio) as sink:
        for frame in source:
            sink.write(frame.pixels, frame.pts, frame.duration)
    cut = sound_packets(tmp_path / name)
    # Packets that begin within frames 10..19, 0.4 s to 0.8 s, each at its own distance from the first of these pictures.
    expected = [(time - Fraction(2, 5), data) for time, data in sound_packets(path) if Fraction(2, 5) <= time < Fraction(4, 5)]
    assert [data for _, data in cut] == [data for _, data in expected]
    assert max(abs(one[0] - other[0]) for one, other in zip(cut, expected, strict=True)) <= Fraction(2, 1000)
    assert seconds(frames.open_source(tmp_path / name)) == [Fraction(index, 25) for index in range(10)]


def write_tracks(path: Path) -> Path:
    """Two video streams, red and blue, of which the second is the default; an English and a German sound, the default."""
    with av.open(str(path), "w", options={"default_mode": "passthrough"} if path.suffix == ".mkv" else {}) as container:
        streams = []
        for default in (0, 1):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.disposition = 64, 48, "yuv420p", Disposition(default)
            streams.append(stream)
        sounds = []
        for language, default in (("eng", 0), ("deu", 1)):
            sound = container.add_stream("aac", rate=48000)
            sound.metadata["language"], sound.disposition = language, Disposition(default)
            sounds.append(sound)
        for stream, color in zip(streams, ((200, 0, 0), (0, 0, 200)), strict=True):
            for index in range(10):
                frame = media_clips.video_frame(np.full((48, 64, 3), color, np.uint8), "yuv420p")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        for number, sound in enumerate(sounds):
            for index in range(20):
                frame = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1 * (number + 1), np.float32), "fltp", "mono")
                frame.rate, frame.pts = 48000, index * 1024
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_all_sound_tracks_go_along_with_their_languages_and_default(tmp_path, name):
    path = write_tracks(tmp_path / "in.mkv")
    write(tmp_path / name, media_clips.smooth_frames(10), audio=path)
    with av.open(str(tmp_path / name)) as container:
        tracks = [(stream.metadata["language"], bool(stream.disposition & 1)) for stream in container.streams.audio]
    assert tracks == [("eng", False), ("deu", True)]


def test_the_default_video_stream_is_read(tmp_path):
    picture = read(write_tracks(tmp_path / "in.mkv"))[0].pixels
    assert picture[..., 2].mean() > 150 > 50 > picture[..., 0].mean()


# Durations


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif"])
@pytest.mark.parametrize("times", [[0, 10, 20], [0], [0, 10, 30, 35, 40, 50, 60]])
def test_the_last_frame_is_displayed_as_long_as_it_was(tmp_path, name, times):
    pixels = media_clips.smooth_frames(len(times))
    with frames.open_sink(tmp_path / name, time_base=Fraction(1, 100), frame_rate=Fraction(10)) as sink:
        for index, pts in enumerate(times):
            sink.write(pixels[index], pts, 300 if index == len(times) - 1 else None)
    source = frames.open_source(tmp_path / name)
    back = list(source)
    assert len(back) == len(times) == source.count()
    assert [round(float(frame.pts * source.time_base), 2) for frame in back] == [time / 100 for time in times]
    assert back[-1].duration * source.time_base == pytest.approx(3, abs=0.011)
    with frames.open_sink(tmp_path / f"again{name}", time_base=source.time_base, frame_rate=source.frame_rate) as sink:
        for frame in back:
            sink.write(frame.pixels, frame.pts, frame.duration)
    again = frames.open_source(tmp_path / f"again{name}")
    assert list(again)[-1].duration * again.time_base == pytest.approx(3, abs=0.011)
    if len(times) > 2:
        cut = list(frames.open_source(f"{tmp_path / name}[0:2]"))
        assert cut[-1].duration * source.time_base == pytest.approx((times[2] - times[1]) / 100, abs=0.002)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_the_last_frame_of_more_than_an_hour_is_displayed_as_long_as_it_was(tmp_path, name):
    first, second = media_clips.smooth_frames(2)
    with frames.open_sink(tmp_path / name, time_base=Fraction(1, 2), frame_rate=Fraction(2)) as sink:
        sink.write(first, 0)
        sink.write(second, 2 * 3700, 2 * 50)  # until 1:02:30
    source = frames.open_source(tmp_path / name)
    _, last = source
    assert (last.pts * source.time_base, last.duration * source.time_base) == (3700, 50)


@pytest.mark.parametrize("shift", [0, 8])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_clip_cut_between_keyframes_has_one_count_and_one_order(tmp_path, suffix, shift):
    """Open groups of pictures, copied from their second keyframe on; the first packets lose their times, or lie before 0."""
    with av.open(str(tmp_path / "whole.mkv"), "w") as container:
        options = {"x264-params": "keyint=10:min-keyint=10:open-gop=1:bframes=3:scenecut=0:b-adapt=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in media_clips.smooth_frames(60):
            container.mux(stream.encode(media_clips.video_frame(picture, "yuv420p")))
        container.mux(stream.encode(None))
    path = tmp_path / f"cut{suffix}"
    with (
        av.open(str(tmp_path / "whole.mkv")) as source,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container,
    ):
        copy = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        packets = packets[[index for index, packet in enumerate(packets) if packet.is_keyframe][1] :]
        start = packets[0].pts + 40 * shift
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            container.mux(packet)
    whole = read(path)
    assert frames.open_source(path).count() == len(whole) > 30
    part = list(frames.open_source(path, end="30f"))
    assert len(part) == 30
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(part, whole, strict=False))
    middle = frames.open_source(path).read(5, 20)
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(middle, whole[5:20], strict=True))
    steps = np.diff([frame.pts for frame in whole]) * float(frames.open_source(path).time_base)
    assert steps == pytest.approx(np.full(len(whole) - 1, 0.04), abs=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_the_shape_of_pixels_is_carried(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", media_clips.smooth_frames(3), pixel_aspect=Fraction(16, 15))
    source = frames.open_source(tmp_path / f"a{suffix}")
    assert source.pixel_aspect == Fraction(16, 15)
    write(tmp_path / f"b{suffix}", media_clips.smooth_frames(3))
    assert frames.open_source(tmp_path / f"b{suffix}").pixel_aspect == 1


def test_interlacing_is_mentioned(tmp_path, caplog):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1:interlaced=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for picture in media_clips.smooth_frames(3, 64, 64):
            container.mux(stream.encode(media_clips.video_frame(picture, "yuv420p")))
        container.mux(stream.encode(None))
    read(tmp_path / "a.mkv")
    assert "is interlaced" in caplog.text


def test_sound_that_does_not_fit_is_left_out_with_a_warning(tmp_path, caplog):
    path = media_clips.write_clip(tmp_path / "in.mp4", media_clips.smooth_frames(5), with_sound=True)
    write(tmp_path / "a.webm", media_clips.smooth_frames(5), audio=path)
    assert "its aac sound does not fit into .webm" in caplog.text
    with av.open(str(tmp_path / "a.webm")) as container:
        assert not container.streams.audio


def test_damaged_sound_ends_early_and_the_pictures_stay(tmp_path):
    clip = media_clips.write_clip(tmp_path / "in.mkv", media_clips.smooth_frames(50), with_sound=True)
    content = bytearray(clip.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    clip.write_bytes(content)
    write(tmp_path / "a.mp4", media_clips.smooth_frames(50), audio=clip)
    assert len(read(tmp_path / "a.mp4")) == 50


def test_a_file_with_sound_only_has_no_video_stream(tmp_path):
    clip = media_clips.write_clip(tmp_path / "in.mp4", media_clips.smooth_frames(5), with_sound=True)
    with av.open(str(clip)) as source, av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(InputError, match="has no video stream"):
        frames.open_source(tmp_path / "sound.mp4")


# Real input


def test_a_real_clip_keeps_every_frame_every_time_and_its_sound(tmp_path, data_root):
    source = frames.open_source(data_root / "video/drive.mp4")
    assert (source.size, source.frame_rate, source.num_frames) == ((540, 960), 25, 221)
    with frames.open_sink(
        tmp_path / "a.mp4", time_base=source.time_base, frame_rate=source.frame_rate, audio=source.audio, quality="draft"
    ) as sink:
        for frame in source:
            sink.write(frame.pixels[::4, ::4], frame.pts)
    result = frames.open_source(tmp_path / "a.mp4")
    assert seconds(result) == [Fraction(index, 25) for index in range(221)]
    assert [data for _, data in sound_packets(tmp_path / "a.mp4")] == [
        data for _, data in sound_packets(data_root / "video/drive.mp4")
    ]


def test_oddities_are_mentioned(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        stream.codec_context.color_trc = 16
        container.mux(stream.encode(media_clips.video_frame(media_clips.smooth_frames(1)[0], "yuv420p")))
        container.mux(stream.encode(None))
    read(path)
    assert "not square (16/15)" in caplog.text
    assert "without tone mapping" in caplog.text


def test_a_video_is_known_by_its_name():
    assert video.is_video(Path("A.MP4"))
    assert not video.is_video(Path("a.png"))
