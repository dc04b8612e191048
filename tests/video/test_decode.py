import gc
import os
import shutil
import socket
import struct
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from mgm.errors import NoMotion, UserError
from mgm.video import (
    container,
    inspect_video,
    open_video,
    probe_video,
    read_clip,
    read_track,
)
from mgm.video.decode import read_pictures
from tests.helpers.videos import CARRIED, REPORTED, moving_square, write_matrix, write_video

REPEATED = "repeat-headers=1"  # x264 writes parameter sets into the packets of key frames


def assert_same(one, two):
    for name in ("frames_THWC", "motion_THW2", "distance_THW", "has_motion_T"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def assert_frames_alone_equal_the_whole(path, motion=True, tries=15):
    whole = read_clip(path, range(probe_video(path).frames), motion)
    rng = np.random.default_rng(0)
    for _ in range(tries):
        index_T = rng.integers(0, len(whole.frames_THWC), rng.integers(1, 6))
        assert_same(read_clip(path, index_T, motion), whole[index_T])
    return whole


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("short_gops.mp4", {"g": 5, "bf": 2}),
        ("pyramid.mp4", {"g": 12, "bf": 3, "b_pyramid": "normal"}),
        ("open_gops.mp4", {"g": 6, "bf": 2, "x264_params": "open-gop=1:keyint=6:min-keyint=6"}),
        ("open_gops.mkv", {"g": 6, "bf": 2, "x264_params": "open-gop=1:keyint=6:min-keyint=6"}),
        (
            "variable_rate.mp4",
            {"g": 7, "times": np.cumsum(np.random.default_rng(0).integers(10, 90, 24))},
        ),
        ("stream.ts", {"g": 6}),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 2, "gop": 6}),
        ("mpeg4.mp4", {"codec": "mpeg4", "b_frames": 2, "gop": 6}),
        ("mpeg2.mpg", {"codec": "mpeg2video", "b_frames": 2, "gop": 6}),
        ("mpeg1.mpg", {"codec": "mpeg1video", "b_frames": 2, "gop": 5}),
        ("mpeg1.ts", {"codec": "mpeg1video", "gop": 4}),
        ("ten_bits.mp4", {"pix_fmt": "yuv420p10le"}),
    ],
)
def test_what_is_read_does_not_depend_on_which_frames_were_asked_for(tmp_path, name, options):
    frames_THWC = moving_square(width=128)
    path = write_video(tmp_path / name, frames_THWC, **options)
    whole = assert_frames_alone_equal_the_whole(path)
    assert len(whole.frames_THWC) == 24
    drawn_TN, read_TN = (
        array.reshape(24, -1).astype(np.float32) for array in (frames_THWC, whole.frames_THWC)
    )
    distance_TT = ((read_TN[:, None] - drawn_TN) ** 2).mean(-1)
    assert distance_TT.argmin(1).tolist() == list(
        range(24)
    )  # every frame is the one that was drawn
    assert whole.has_motion_T.any()
    assert whole.distance_THW.min() >= 1


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.name)
def test_frames_of_carried_clips_do_not_depend_on_which_were_asked_for(path):
    assert_frames_alone_equal_the_whole(path, motion=probe_video(path).has_vectors, tries=4)


def test_odd_sizes_keep_every_pixel_and_a_cell_for_the_rest(tmp_path):
    frames_THWC = moving_square()[:, :61, :51]
    clip = read_clip(write_video(tmp_path / "odd.mkv", frames_THWC, pix_fmt="yuv444p"), [3, 4])
    assert clip.frames_THWC.shape == (2, 61, 51, 3)
    assert clip.motion_THW2.shape == (2, 8, 7, 2)


# Display matrices map (x, y) to (a x + c y, b x + d y).
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda frames: np.rot90(frames, 3, (1, 2))),
        ((-1, 0, 0, -1), lambda frames: np.rot90(frames, 2, (1, 2))),
        ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, (1, 2))),
        ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
        ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),
        ((0, 1, 1, 0), lambda frames: frames.swapaxes(1, 2)),
        ((0, -1, -1, 0), lambda frames: np.rot90(frames, 2, (1, 2)).swapaxes(1, 2)),
    ],
    ids=["90", "180", "270", "hflip", "vflip", "transpose", "antitranspose"],
)
def test_a_display_matrix_turns_and_mirrors_frames_and_vectors(tmp_path, matrix, shown):
    plain = read_clip(REPORTED / "plain.mp4", range(24))
    path = shutil.copy(REPORTED / "plain.mp4", tmp_path / "turned.mp4")
    turned = read_clip(write_matrix(path, *matrix), range(24))
    np.testing.assert_array_equal(turned.frames_THWC, shown(plain.frames_THWC))
    a, b, c, d = matrix
    x_THW, y_THW = np.moveaxis(shown(plain.motion_THW2), -1, 0)
    moved_THW2 = np.stack([a * x_THW + c * y_THW, b * x_THW + d * y_THW], -1)
    assert moved_THW2.any()
    np.testing.assert_array_equal(turned.motion_THW2, moved_THW2)
    info = probe_video(path)
    assert (info.height, info.width) == turned.frames_THWC.shape[1:3]


def test_vectors_of_cropped_h264_are_those_of_the_visible_part():
    whole = read_clip(REPORTED / "crop-none.mp4", range(24))
    part = read_clip(REPORTED / "crop-left64-top32.mp4", range(24))
    np.testing.assert_array_equal(part.frames_THWC, whole.frames_THWC[:, 32:, 64:])
    np.testing.assert_array_equal(part.motion_THW2, whole.motion_THW2[:, 4:, 8:])
    assert part.motion_THW2.any()
    seen = read_track(REPORTED / "crop-left64-top32.mp4")[:].vectors_THW2[part.has_motion_T]
    np.testing.assert_array_equal(seen, part.motion_THW2[part.has_motion_T])


def copied(source, out, change=None, bitstream=None, first=0, options=None) -> Path:
    """Copy the packets of a video to another file, as `ffmpeg -c copy` does.

    Args:
        first: the first packet that is copied.
        change: takes a packet and its number, and changes the packet.
        bitstream: an FFmpeg bitstream filter.
    """
    number = 0
    with av.open(str(source)) as given, av.open(str(out), "w", options=options) as written:
        stream = written.add_stream_from_template(given.streams.video[0])
        chain = bitstream and BitStreamFilterContext(bitstream, given.streams.video[0], stream)
        for packet in islice(given.demux(video=0), first, None):
            flushes = not packet.size
            if flushes and not chain:
                break
            for each in chain.filter(None if flushes else packet) if chain else [packet]:
                each.stream = stream
                if change:
                    change(each, number)
                written.mux(each)
                number += 1
    return Path(out)


def without_parameter_sets(path) -> Path:
    """Remove the sequence parameter sets next to an MP4's packets, so that those within hold."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"avcC") + 9
    assert data[at] == 0xE1
    data[at] = 0xE0
    Path(path).write_bytes(data)
    return Path(path)


@pytest.mark.parametrize("name", ["copy.mp4", "copy.mov", "copy.mkv"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": 3, "b_pyramid": "normal"}),
        ("mpeg4", {"b_frames": 2}),
        ("mpeg2video", {"b_frames": 2}),
        ("libx265", {"x265_params": "bframes=3:log-level=none"}),
    ],
)
def test_times_without_the_order_of_pictures_are_not_believed(tmp_path, name, codec, options):
    """A copy from AVI or a raw stream has the decoding time in place of the presentation time."""
    source = write_video(tmp_path / "source.mp4", moving_square(width=128), codec, **options)

    def renumber(packet, number):
        packet.pts = packet.dts = number * int(1 / (25 * packet.time_base))

    path = copied(source, tmp_path / name, renumber)
    info = probe_video(path)
    assert info.frames == 24
    if name != "copy.mkv":  # the packet's time base is the source's
        assert info.fps == pytest.approx(25, rel=0.01)
    whole = assert_frames_alone_equal_the_whole(path, info.has_vectors, tries=5)
    assert_same(whole, read_clip(source, range(24), info.has_vectors))


def test_copies_of_a_stream_without_b_frames_are_read_from_key_frames(tmp_path):
    params = "bframes=0:keyint=8:min-keyint=8:scenecut=0"
    path = write_video(tmp_path / "v.mp4", moving_square(48), x264_params=params)
    with open_video(path) as video:
        assert [picture.index for picture in video.pictures(20, wanted={20})] == list(range(16, 21))


@pytest.mark.parametrize("name", ["piece.mkv", "piece.mp4", "fragments.mp4"])
@pytest.mark.parametrize("cut", [1, 6])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264_params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}),
        ("libx265", {"x265_params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:log-level=none"}),
        ("mpeg2video", {"b_frames": 2, "gop": 8}),
        # FFmpeg makes up a first picture, and counts it.
        ("mpeg4", {"b_frames": 2, "gop": 8}),
    ],
)
def test_frames_of_a_piece_of_a_video_are_numbered_as_ffmpeg_does(
    tmp_path, codec, options, cut, name
):
    """A lossless cut leaves pictures out that the next ones refer to, and keeps their times."""
    source = write_video(tmp_path / "source.mp4", moving_square(30, 64, 96), codec, **options)
    written = {"movflags": "frag_keyframe+empty_moov"} if "fragments" in name else {}
    path = copied(source, tmp_path / name, first=cut, options={"use_editlist": "0"} | written)
    with av.open(str(path)) as file:
        file.streams.video[0].codec_context.thread_count = 1
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert probe_video(path).frames == len(shown)
    for index_T in (range(len(shown)), [9]):
        read_THWC = read_clip(path, index_T, motion=False).frames_THWC
        np.testing.assert_array_equal(read_THWC, np.stack(shown)[index_T])
    if probe_video(path).has_vectors:
        assert len(read_track(path)) == len(shown)


@pytest.mark.parametrize("left", [16, 30])
def test_parameter_sets_within_the_packets_hold(tmp_path, left):
    plain = write_video(tmp_path / "plain.mp4", moving_square(12, 96, 160), x264_params=REPEATED)
    whole = copied(plain, tmp_path / "whole.mp4", bitstream=f"h264_metadata=crop_left={left}")
    part = without_parameter_sets(shutil.copy(whole, tmp_path / "part.mp4"))
    assert_same(read_clip(part, range(12)), read_clip(whole, range(12)))
    assert read_clip(part, [0]).width == 160 - left


def test_field_pictures_with_parameter_sets_within_the_packets_are_one_frame(tmp_path):
    raw = copied(REPORTED / "paff.mp4", tmp_path / "v.h264", bitstream="h264_mp4toannexb")

    def number(packet, count):
        packet.pts = packet.dts = count * int(1 / (50 * packet.time_base))

    path = without_parameter_sets(copied(raw, tmp_path / "v.mp4", number))
    assert probe_video(path).frames == 24
    whole = assert_frames_alone_equal_the_whole(path, tries=5)
    assert_same(whole, read_clip(REPORTED / "paff.mp4", range(24)))


def test_a_crop_that_changes_is_refused(tmp_path):
    both = []
    for left in (16, 32):
        path = write_video(tmp_path / "v.mp4", moving_square(6, 96, 128 + left))
        cropped = copied(path, tmp_path / "c.mp4", bitstream=f"h264_metadata=crop_left={left}")
        both.append(copied(cropped, tmp_path / "c.h264", bitstream="h264_mp4toannexb").read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(both))
    with pytest.raises(UserError, match=r"both\.h264: its cropping changes"):
        read_clip(tmp_path / "both.h264", [0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.ts", {"bf": 2}),
        ("v.mpg", {"codec": "mpeg2video", "b_frames": 2}),
        ("v.vob", {"codec": "mpeg2video", "b_frames": 0}),
    ],
)
@pytest.mark.parametrize("hours", [0, 1])
def test_joined_streams_keep_all_pictures_and_the_rate(tmp_path, name, options, hours):
    """The times of the second part begin anew, or much later."""
    drawn, parts = [moving_square(25, 96, 128, seed=seed) for seed in (0, 1)], []
    for number, frames_THWC in enumerate(drawn):
        path = write_video(tmp_path / name, frames_THWC, **options)
        late = tmp_path / f"late-{name}"

        def delay(packet, _, seconds=3600 * hours * number):
            packet.pts += int(seconds / packet.time_base)
            packet.dts += int(seconds / packet.time_base)

        parts.append((copied(path, late, delay) if number else Path(path)).read_bytes())
    joined = tmp_path / f"joined-{name}"
    joined.write_bytes(b"".join(parts))
    info = probe_video(joined)
    assert info.fps == pytest.approx(25)
    read_TN = read_clip(joined, range(info.frames)).frames_THWC.reshape(info.frames, -1)
    drawn_TN = np.concatenate(drawn).reshape(50, -1).astype(np.float32)
    distance_TT = ((read_TN.astype(np.float32)[:, None] - drawn_TN) ** 2).mean(-1)
    assert distance_TT.argmin(1).tolist() == list(range(50))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_recording_that_stands_still_lasts_as_long_as_its_clock(tmp_path, name):
    times = np.cumsum([0, *[20] * 11, 3000, *[20] * 11])
    info = probe_video(write_video(tmp_path / name, moving_square(24), times=times))
    assert info.duration_s == pytest.approx(3.46, rel=0.05)


@pytest.mark.parametrize("name", ["v.avi", "v.mp4", "v.mkv"])
@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_i_frames_alone_of_other_codecs_have_no_vectors(tmp_path, name, codec):
    path = write_video(tmp_path / name, moving_square(6), codec, gop=1, b_frames=0)
    assert not probe_video(path).has_vectors
    assert probe_video(path).frames == 6


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.h264"])
def test_h264_of_i_frames_alone_has_no_vectors_and_says_so(tmp_path, name):
    path = write_video(tmp_path / name, moving_square(10), g=1)
    info = probe_video(path)
    assert (info.frames, info.has_vectors) == (10, False)
    with pytest.raises(NoMotion, match=rf"{name}: .*I-frames") as error:
        read_clip(path, [0, 5])
    assert "ffmpeg -i" in str(error.value)
    assert_frames_alone_equal_the_whole(path, motion=False, tries=3)
    assert "I-frames" in inspect_video(path).describe()


@pytest.mark.parametrize("left", [2, 16, 30])
def test_a_crop_between_cells_keeps_the_vectors_at_their_pixels(tmp_path, left):
    """A crop is written into the H.264 header; the pixels are those of the whole frame."""
    whole_path = write_video(tmp_path / "whole.mp4", moving_square(12, 96, 160))
    crop = f"h264_metadata=crop_left={left}"
    cropped = copied(whole_path, tmp_path / "cropped.mp4", bitstream=crop)
    whole, part = read_clip(whole_path, range(12)), read_clip(cropped, range(12))
    np.testing.assert_array_equal(part.frames_THWC, whole.frames_THWC[:, :, left:])
    centre_W = 8 * np.arange(part.motion_THW2.shape[2]) + 4
    theirs = whole.motion_THW2[:, :, (centre_W + left).clip(max=159) // 8]
    inside = centre_W + left < 160
    np.testing.assert_array_equal(part.motion_THW2[:, :, inside], theirs[:, :, inside])


def test_the_rate_of_a_recording_without_one_follows_from_its_times():
    info = probe_video(REPORTED / "recorder-vp8.webm")
    assert info.frames == 90
    assert info.fps == pytest.approx(89 / 5.816)
    assert info.duration_s == pytest.approx(5.85, abs=0.05)


def test_two_field_pictures_are_one_frame():
    info = probe_video(REPORTED / "paff.mp4")
    assert (info.frames, info.fps) == (24, 25)
    assert_frames_alone_equal_the_whole(REPORTED / "paff.mp4")


def test_a_film_after_a_still_is_the_video():
    info = probe_video(REPORTED / "thumb-first.mkv")
    assert (info.frames, info.codec, info.width, info.height) == (24, "h264", 192, 128)
    assert read_clip(REPORTED / "thumb-first.mkv", range(24)).motion_THW2.any()


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path):
    path = write_video(tmp_path / "edited.mp4", moving_square(), bf=2, g=12)
    whole = read_clip(path, range(24))
    data = bytearray(Path(path).read_bytes())
    at = (
        data.index(b"elst") + 12 + 4
    )  # version, flags, count and duration lie before the media time
    (start,) = struct.unpack_from(">i", data, at)
    struct.pack_into(
        ">i", data, at, start + 5 * 512
    )  # PyAV's MP4 counts 512 ticks per frame at 25 frames per second
    Path(path).write_bytes(data)
    assert probe_video(path).frames == 19
    edited = assert_frames_alone_equal_the_whole(path)
    np.testing.assert_array_equal(edited.frames_THWC, whole.frames_THWC[5:])


def test_one_frame_is_a_still_clip_without_motion_information(tmp_path):
    path = write_video(tmp_path / "one.mp4", moving_square(1))
    assert probe_video(path).frames == 1
    clip = read_clip(path, [0, 0])
    assert clip.frames_THWC.shape[0] == 2
    assert not clip.has_motion_T.any()


@pytest.mark.parametrize(
    ("name", "codec", "known_as"),
    [
        ("v.webm", "libvpx", "vp8"),
        ("v.webm", "libvpx-vp9", "vp9"),
        ("v.mp4", "libx265", "hevc"),
        ("v.mp4", "libsvtav1", "av1"),
        ("v.avi", "mjpeg", "mjpeg"),
    ],
)
def test_a_codec_without_vectors_says_so_and_reads_without_them(tmp_path, name, codec, known_as):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, moving_square(10), codec=codec, pix_fmt=pix_fmt)
    info = probe_video(path)
    assert (info.codec, info.has_vectors, info.frames) == (known_as, False, 10)
    with pytest.raises(NoMotion, match=rf"{name}: .*{known_as} .*ffmpeg -i ") as error:
        read_clip(path, [0, 5])
    assert "\n" not in str(error.value)
    assert_frames_alone_equal_the_whole(path, motion=False, tries=3)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *((codec, "avi") for codec in ("h263p", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2")),
        *((codec, "avi") for codec in ("mpeg1video", "mpeg2video", "h261", "snow")),
        ("flv", "flv"),
        ("rv10", "rm"),
        ("rv20", "rm"),
    ],
)
def test_every_codec_said_to_have_vectors_has_them(tmp_path, codec, suffix):
    drawn = moving_square(8, 144, 176, side=64)
    path = write_video(tmp_path / f"v.{suffix}", drawn, codec=codec, gop=30)
    assert probe_video(path).has_vectors
    clip = read_clip(path, range(8))
    assert clip.has_motion_T.sum() >= 6
    assert np.median(clip.motion_THW2[clip.motion_THW2.any(-1)], 0).tolist() == [4, 0]


def audio_file(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


def picture_file(path):
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.height = stream.width = 16
        stream.pix_fmt = "rgb24"
        container.mux(
            stream.encode(
                av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            )
        )
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("missing.mp4", lambda path: None, ""),
        ("empty.mp4", lambda path: path.touch(), ""),
        ("noise.mp4", lambda path: path.write_bytes(os.urandom(5000)), ""),
        ("notes.txt", lambda path: path.write_text("not a video\n" * 50), "tty"),
        ("picture.png", picture_file, "png"),
        ("sound.m4a", audio_file, "stream"),
    ],
)
def test_bad_files_give_one_line_that_names_them(tmp_path, name, make, says):
    make(tmp_path / name)
    for read in (probe_video, lambda path: read_clip(path, [0])):
        with pytest.raises(UserError, match=rf"{name}: .*{says}") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile video.ts\n"),
        ("whole.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nvideo.ts\n#EXT-X-ENDLIST\n"),
        # FFmpeg waits for more of a list without an end.
        ("endless.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nvideo.ts\n"),
    ],
)
def test_a_list_of_other_files_is_not_followed(tmp_path, name, text):
    write_video(tmp_path / "video.ts", moving_square(4))
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: "):
        probe_video(tmp_path / name)


def test_a_picture_wider_than_other_libraries_read_is_refused(tmp_path):
    path = Path(write_video(tmp_path / "wide.gif", moving_square(2), codec="gif", pix_fmt="rgb8"))
    data = bytearray(path.read_bytes())
    data[6:8] = b"\xff\xff"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"wide.gif: is 65535 x \d+ pixels"):
        probe_video(path)


def test_a_name_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = Path(write_video(tmp_path / "video.mp4", moving_square(4)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        name = f"http:127.0.0.1:{server.getsockname()[1]}?x.mp4"
        video.rename(name)
        assert probe_video(name).frames == 4
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_title_in_another_encoding_is_no_error(tmp_path):
    path = Path(write_video(tmp_path / "video.mp4", moving_square(4)))
    with av.open(str(path)) as source, av.open(str(tmp_path / "named.mp4"), "w") as copy:
        copy.metadata["title"] = "Zurich"
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    named = tmp_path / "named.mp4"
    named.write_bytes(named.read_bytes().replace(b"Zurich", b"Z\xfcrich"))
    assert probe_video(named).frames == 4


def truncated(tmp_path, share):
    """Write an MP4 with its header first, and a copy that is cut off; return both paths."""
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height = stream.width = 64
        for image in moving_square():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    return whole, tmp_path / "cut.mp4"


def test_a_truncated_file_gives_what_it_has_and_says_how_much_that_is(tmp_path):
    whole, cut = truncated(tmp_path, 0.75)
    frames = probe_video(cut).frames
    assert 4 < frames < 24
    assert_same(read_clip(cut, [0, 3]), read_clip(whole, [0, 3]))
    assert_frames_alone_equal_the_whole(cut)
    with pytest.raises(UserError, match=rf"cut\.mp4: frame 23 .* {frames} frames"):
        read_clip(cut, [0, 23])


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv"])
def test_an_index_beyond_the_end_names_both_numbers(tmp_path, name):
    path = write_video(
        tmp_path / name, moving_square(10), codec="mpeg4" if name.endswith("avi") else "libx264"
    )
    with pytest.raises(UserError, match=rf"{name}: frame 12 .*10 frames"):
        read_clip(path, [4, 12])
    with pytest.raises(UserError, match=f"{name}: "):
        read_clip(path, [-1])
    with pytest.raises(UserError, match=f"{name}: "):
        read_clip(path, [])


def test_corrupt_packets_in_the_middle_cost_their_frames_only(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(48), g=6, bf=2)
    data = bytearray(Path(path).read_bytes())
    start = len(data) // 2
    data[start : start + 600] = np.random.default_rng(0).integers(0, 256, 600, np.uint8).tobytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    assert_same(read_clip(broken, [0, 5]), read_clip(path, [0, 5]))
    assert_same(read_clip(broken, [47]), read_clip(path, [47]))
    with pytest.raises(UserError, match=r"broken\.mp4: frame \d+"):
        read_clip(broken, range(48))


def test_files_are_closed_whatever_happens(tmp_path):
    good, cut = write_video(tmp_path / "v.mp4", moving_square(8)), truncated(tmp_path, 0.7)[1]
    (tmp_path / "noise.mp4").write_bytes(os.urandom(2000))
    gc.disable()  # a file that only the collector closes stays open
    try:
        for bad in (cut, tmp_path / "noise.mp4", tmp_path):
            read_clip(good, [2])
            with pytest.raises(UserError):
                read_clip(bad, [23])
        # Other threads may open what they like; and realpath accepts a descriptor that is gone.
        opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    finally:
        gc.enable()
    assert not [path for path in opened if path.startswith(str(tmp_path))]


def test_a_change_of_size_in_midstream_is_an_error(tmp_path):
    parts = [
        write_video(tmp_path / f"{side}.h264", moving_square(4, side, side)) for side in (64, 96)
    ]
    (tmp_path / "both.h264").write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    assert read_clip(tmp_path / "both.h264", [3]).height == 64
    assert read_clip(tmp_path / "both.h264", [4]).height == 96
    with pytest.raises(UserError, match=r"both\.h264: frame 4 .*96 x 96.*64 x 64"):
        read_clip(tmp_path / "both.h264", range(8))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_only_what_wanted_pictures_need_is_decoded(tmp_path, name):
    """Nothing before the key frame or after the last wanted picture is decoded.

    B-pictures in between are skipped, unless they are wanted.
    """
    params = "keyint=16:min-keyint=16:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none:ref=1"
    path = write_video(tmp_path / name, moving_square(48, width=128), x264_params=params)
    whole = read_clip(path, range(48))
    for wanted, needed in (
        ({0, 4, 8}, {0, 4, 8}),
        ({20, 36}, {16, 20, 24, 28, 31, 32, 36}),
        ({5}, {0, 4, 5, 8}),
        ({8, 13}, {0, 4, 8, 12, 13, 15}),  # the last picture of a group is a P-picture
    ):
        with open_video(path) as video:
            assert {
                picture.index for picture in video.pictures(min(wanted), wanted=wanted)
            } == needed
        assert_same(read_clip(path, sorted(wanted)), whole[sorted(wanted)])


def odd_times(path, codec, fourcc):
    """Write a video whose packets have missing, repeated or wrong times, and return its frames.

    Matroska in VfW mode stores one time per packet. Writers store the presentation time, but FFmpeg
    reads it as the decoding time and derives presentation times from it.
    """
    frames_THWC = moving_square()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames_THWC.shape[1:3]
        context = stream.codec_context
        context.max_b_frames, context.gop_size = 2, 6
        if fourcc:
            context.flags &= ~(1 << 22)  # AV_CODEC_FLAG_GLOBAL_HEADER
            sides = stream.width, stream.height
            context.extradata = struct.pack("<3i2H4s5i", 40, *sides, 1, 24, fourcc, *[0] * 5)
        for image in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    for name in (b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/ASP"):
        data = data.replace(name, b"V_MS/VFW/FOURCC")
    path.write_bytes(data)
    return frames_THWC


@pytest.mark.parametrize(
    ("name", "codec", "fourcc", "fault"),
    [
        ("v.h264", "libx264", None, "missing"),
        ("v.mkv", "libx264", b"H264", "repeated"),
        ("v.mkv", "mpeg4", b"XVID", "wrong"),
    ],
)
def test_files_with_odd_times_are_read_in_the_order_of_their_pictures(
    tmp_path, name, codec, fourcc, fault
):
    drawn_TN = odd_times(tmp_path / name, codec, fourcc).reshape(24, -1).astype(np.float32)
    with av.open(str(tmp_path / name)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    times, decoded = [packet.pts for packet in packets], [packet.dts for packet in packets]
    if fault == "missing":
        assert None in times
    elif fault == "repeated":
        assert len(set(times)) < len(times)
    else:
        assert decoded != sorted(decoded)
    assert probe_video(tmp_path / name).frames == 24
    whole = assert_frames_alone_equal_the_whole(tmp_path / name)
    read_TN = whole.frames_THWC.reshape(24, -1).astype(np.float32)
    distance_TT = ((read_TN[:, None] - drawn_TN) ** 2).mean(-1)
    assert distance_TT.argmin(1).tolist() == list(range(24))


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "v.mp4"
    with socket.socket(socket.AF_UNIX) as server:
        {
            "fifo": lambda: os.mkfifo(path),
            "socket": lambda: server.bind(os.path.relpath(path)),
            "device": lambda: path.symlink_to("/dev/zero"),
            "folder": path.mkdir,
        }[kind]()
        for read in (
            probe_video,
            inspect_video,
            lambda path: read_clip(path, [0]),
            lambda path: list(read_pictures(path)),
        ):
            with pytest.raises(UserError, match=r"v\.mp4: "):
                read(path)


def test_a_file_cut_short_lasts_as_long_as_its_frames(tmp_path):
    whole = Path(write_video(tmp_path / "whole.mkv", moving_square(48), g=8))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    info, said = probe_video(cut), probe_video(whole)
    assert 0 < info.frames < said.frames == 48
    assert info.duration_s == pytest.approx(info.frames / info.fps)
    assert info.duration_s < said.duration_s


def test_the_times_of_a_file_are_read_once_while_it_stays_the_same(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", moving_square(24), bf=2)
    whole, times = read_clip(path, range(24)), []

    def counted(packets, real=container.stored_times):
        times.append(path)
        return real(packets)

    monkeypatch.setattr(container, "stored_times", counted)
    for index in (3, 17, 23):
        assert_same(read_clip(path, [index]), whole[[index]])
    assert not times
    write_video(path, moving_square(20), bf=2)
    with pytest.raises(UserError, match="ends after 20 frames"):
        read_clip(path, [23])
    assert len(times) == 1
