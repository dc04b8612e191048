"""Foreign files: frame i is the i-th picture that FFmpeg shows, and vectors are as it exports."""

import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from mgm.errors import NoMotion, UserError
from mgm.video.decode import COLUMNS, blocks, packets, probe, read, source_track
from tests.helpers.videos import (
    CARRIED,
    REPORTED,
    copied,
    encrypt,
    moving_square,
    write_matrix,
    write_video,
)


def shown(path):
    """Return the pictures that PyAV decodes, as RGB."""
    pictures = []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for packet in container.demux(video=0):
            with suppress(av.InvalidDataError):
                pictures += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    return np.stack(pictures)


def assert_same(one, two):
    for name in ("frames_THWC", "motion_THW2", "distance_THW", "has_motion_T"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pyramid.mp4", {"g": 12, "bf": 3, "b_pyramid": "normal"}),
        ("open_gops.mkv", {"g": 6, "bf": 2, "x264_params": "open-gop=1:keyint=6:min-keyint=6"}),
        ("times.mp4", {"times": np.cumsum(np.random.default_rng(0).integers(10, 90, 24))}),
        ("stream.ts", {"g": 6}),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 2, "gop": 6}),
        ("mpeg2.mpg", {"codec": "mpeg2video", "b_frames": 2, "gop": 6}),
        ("ten_bits.mp4", {"pix_fmt": "yuv420p10le"}),
        ("odd.mkv", {"pix_fmt": "yuv444p"}),
    ],
)
def test_any_frames_are_those_of_ffmpeg_with_the_motion_of_the_track(tmp_path, name, options, rng):
    drawn_THWC = moving_square(width=128)[:, :61, :51] if name == "odd.mkv" else moving_square()
    path = write_video(tmp_path / name, drawn_THWC, **options)
    whole, track = read(path), source_track(path)
    np.testing.assert_array_equal(whole.frames_THWC, shown(path))
    assert len(whole.frames_THWC) == len(track) == probe(path).frames == 24
    assert whole.motion_THW2.any()
    for name, array in vars(track[:]).items():
        np.testing.assert_array_equal(array, getattr(whole.motion, name), err_msg=name)
    for _ in range(5):
        index_T = rng.integers(0, 24, rng.integers(1, 6))
        assert_same(read(path, index_T), whole[index_T])


# Display matrices map (x, y) to (a x + c y, b x + d y).
@pytest.mark.parametrize(
    ("matrix", "turn"),
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
def test_a_display_matrix_turns_and_mirrors_frames_and_vectors(tmp_path, matrix, turn):
    plain = read(REPORTED / "plain.mp4")
    path = shutil.copy(REPORTED / "plain.mp4", tmp_path / "turned.mp4")
    turned = read(write_matrix(path, *matrix))
    np.testing.assert_array_equal(turned.frames_THWC, turn(plain.frames_THWC))
    a, b, c, d = matrix
    x_THW, y_THW = np.moveaxis(turn(plain.motion_THW2), -1, 0)
    moved_THW2 = np.stack([a * x_THW + c * y_THW, b * x_THW + d * y_THW], -1)
    assert moved_THW2.any()
    np.testing.assert_array_equal(turned.motion_THW2, moved_THW2)
    assert (probe(path).height, probe(path).width) == turned.frames_THWC.shape[1:3]


def test_an_orientation_that_only_key_frames_carry_turns_all_frames(tmp_path):
    """Android's encoder writes it as an SEI message."""
    plain = write_video(tmp_path / "plain.mp4", moving_square(height=48), bf=2, g=12)
    turn = "h264_metadata=display_orientation=insert:rotate=180"
    turned = read(copied(plain, tmp_path / "turned.mp4", bitstream=turn))
    np.testing.assert_array_equal(turned.frames_THWC, read(plain).frames_THWC[:, ::-1, ::-1])


@pytest.mark.parametrize("left", [2, 16, 30])
def test_a_crop_keeps_the_vectors_at_their_pixels(tmp_path, left):
    """A square crosses the picture; its vectors lie where its pixels are."""
    plain = write_video(tmp_path / "plain.mp4", moving_square(12, 96, 160, side=32), bf=0)
    crop = f"h264_metadata=crop_left={left}:crop_top=16"
    part, whole = read(copied(plain, tmp_path / "part.mp4", bitstream=crop)), read(plain)
    np.testing.assert_array_equal(part.frames_THWC, whole.frames_THWC[:, 16:, left:])
    pixels_THW2 = whole.motion_THW2.repeat(8, 1).repeat(8, 2)[:, 16:, left:]
    if left % 8 == 0:
        np.testing.assert_array_equal(part.motion_THW2, pixels_THW2[:, ::8, ::8])
    moved_THW2 = part.motion_THW2.repeat(8, 1).repeat(8, 2)[:, :, : 160 - left]
    # Blocks may begin between cells, so they are off by up to half a cell.
    assert (moved_THW2 == pixels_THW2).all(-1).mean() > 0.9


def test_files_with_odd_structures_have_ffmpegs_pictures(tmp_path):
    """Two fields per frame, a still before the film, hidden frames, and a lossless cut."""
    path = write_video(tmp_path / "edited.mp4", moving_square(), bf=2, g=12)
    edited = bytearray(Path(path).read_bytes())
    at = edited.index(b"elst") + 16
    (start,) = struct.unpack_from(">i", edited, at)
    struct.pack_into(">i", edited, at, start + 5 * 512)  # 512 ticks per frame
    Path(path).write_bytes(edited)
    gops = "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"
    long = write_video(tmp_path / "long.mp4", moving_square(30), x264_params=gops)
    piece = copied(long, tmp_path / "piece.mkv", first=6)
    known = {REPORTED / "paff.mp4": 24, REPORTED / "thumb-first.mkv": 24, path: 19, piece: None}
    for file, count in known.items():
        pictures = shown(file) if file != REPORTED / "thumb-first.mkv" else read(file).frames_THWC
        assert len(source_track(file)) == probe(file).frames == len(pictures)
        assert count in (None, len(pictures))
        np.testing.assert_array_equal(read(file).frames_THWC, pictures)
        np.testing.assert_array_equal(read(file, [9]).frames_THWC, pictures[[9]])


def test_packets_without_a_picture_are_not_counted(tmp_path):
    """Here H.264 samples that hold an access unit delimiter alone."""
    plain = write_video(tmp_path / "plain.mp4", moving_square(), bf=2, g=12)

    def emptied(packet, number):
        if number % 5 or number == 0 or bytes(packet)[4] & 0x60:
            return packet
        new = av.Packet(struct.pack(">I", 2) + b"\x09\xf0")
        new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
        new.time_base = packet.time_base
        return new

    path = copied(plain, tmp_path / "v.mp4", emptied)
    count = len(shown(path))
    assert count < 24
    assert probe(path).frames == len(source_track(path)) == len(read(path).frames_THWC) == count


def test_the_rate_is_the_mean_of_the_pictures_without_jumps(tmp_path):
    """Of a recording without a rate, of fields, with a pause, and of joined files."""
    assert probe(REPORTED / "recorder-vp8.webm").fps == pytest.approx(89 / 5.816)
    assert probe(REPORTED / "paff.mp4").fps == pytest.approx(25)
    times = np.cumsum([0, *[20] * 11, 3000, *[20] * 11])
    paused = write_video(tmp_path / "v.mp4", moving_square(24), times=times)
    assert probe(paused).fps == pytest.approx(50)
    assert probe(of_parts(tmp_path / "back.ts", 64, 64)).fps == pytest.approx(25)
    # Recorded a day apart.
    days = np.append(np.arange(12) * 40, np.arange(12) * 40 + 86_400_000)
    apart = write_video(tmp_path / "days.mkv", moving_square(24), times=days, rate=25)
    assert probe(apart).fps == pytest.approx(25)
    # The file states three quarters of it.
    fast = write_video(tmp_path / "fast.mkv", moving_square(24), times=np.arange(24) * 30, rate=25)
    assert probe(fast).fps == pytest.approx(1000 / 30)


def test_frames_before_the_first_p_frame_are_read_as_those_of_the_track(tmp_path):
    """That a file has I-frames alone is not known from the first ones."""
    x264 = "keyint=24:force-cfr=1:scenecut=0"
    plain = write_video(tmp_path / "plain.mp4", moving_square(12), g=1)
    other = write_video(tmp_path / "other.mp4", moving_square(12), bf=2, x264_params=x264)
    parts = [copied(path, f"{path}.ts").read_bytes() for path in (plain, other)]
    (tmp_path / "v.ts").write_bytes(b"".join(parts))
    known = source_track(tmp_path / "v.ts")
    assert known.kind_T[:13].tolist() == ["I"] * 13
    for frames in ([0], [0, 1], [3, 11], [14, 0]):
        clip = read(tmp_path / "v.ts", frames)
        for name, array in vars(known[frames]).items():
            np.testing.assert_array_equal(getattr(clip.motion, name), array, err_msg=name)
        assert [len(part) > 0 for part in blocks(tmp_path / "v.ts", frames)] == [
            bool(has_mv) for has_mv in known.has_mv_T[frames]
        ]
    for work in (read, blocks):
        with pytest.raises(NoMotion, match="I-frames alone"):
            work(plain, [0, 1])


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.name)
def test_packets_blocks_kinds_and_times_are_those_of_a_plain_program(path, rng):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        plain = [
            (float(p.pts * p.time_base), p.size, p.is_keyframe, p.pos)
            for p in container.demux(stream)
            if p.size
        ]
    assert [tuple(row) for row in packets(path).tolist()] == plain
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.flags2 |= 1 << 28
        frames = list(container.decode(stream))
        exported = [frame.side_data.get("MOTION_VECTORS") for frame in frames]
        index_T = rng.integers(len(frames), size=8)
        for index, found_N10 in zip(index_T, blocks(path, index_T)):
            assert found_N10.dtype == np.int32
            assert found_N10.shape[1] == 10
            data = exported[index]
            known = data.to_ndarray() if data else np.empty(0, [(name, int) for name in COLUMNS])
            columns = [known[name] for name in COLUMNS]
            np.testing.assert_array_equal(found_N10, np.stack(columns, 1))
    track = source_track(path)
    assert track.time_T.tolist() == [frame.time for frame in frames]
    assert track.kind_T.tolist() == [PictureType(frame.pict_type).name for frame in frames]


@pytest.mark.parametrize("name", ["v.webm", "v.mkv", "v.flv"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_half_a_download_says_how_much_is_there(tmp_path, name, share):
    """These files list no packets, but state how long they are."""
    codec = "libvpx" if name == "v.webm" else "libx264"
    path = write_video(tmp_path / name, moving_square(48, 128, 128), codec=codec)
    assert probe(path).frames == 48
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(share * len(data))])
    for work in (probe, lambda path: read(path, motion=False)):
        with pytest.raises(UserError, match=rf"{name}: (is cut off after .* of the|.* packets)"):
            work(path)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.webm", "libvpx-vp9", {}),
        ("v.mp4", "libx265", {"x265_params": "log-level=none"}),
        ("v.mkv", "libsvtav1", {}),
        ("v.mp4", "libx264", {"g": 1}),
        ("v.avi", "mpeg4", {"gop": 1}),
    ],
)
def test_a_file_without_vectors_says_so_and_reads_without_them(tmp_path, name, codec, options):
    path = write_video(tmp_path / name, moving_square(10), codec=codec, **options)
    assert (probe(path).vectors, probe(path).frames) == ("none", 10)
    for work in (source_track, lambda path: blocks(path, [0])):
        with pytest.raises(NoMotion, match=f"{name}: "):
            work(path)
    table = packets(path)
    assert table["key"][0]
    assert sorted(table["time_s"].round(2)) == pytest.approx([t / 25 for t in range(10)])
    assert (table["size"] > 0).all()
    clip = read(path, [0, 5], motion=False)
    np.testing.assert_array_equal(clip.frames_THWC, shown(path)[[0, 5]])
    assert not clip.has_motion_T.any()


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *((codec, "avi") for codec in ("h263p", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2")),
        *((codec, "avi") for codec in ("mpeg1video", "mpeg2video", "h261", "snow")),
        *(("flv", "flv"), ("rv10", "rm"), ("rv20", "rm")),
    ],
)
def test_every_codec_said_to_have_vectors_has_them(tmp_path, codec, suffix):
    drawn = moving_square(8, 144, 176, side=64)
    clip = read(write_video(tmp_path / f"v.{suffix}", drawn, codec=codec, gop=30))
    assert clip.has_motion_T.sum() >= 6
    assert np.median(clip.motion_THW2[clip.motion_THW2.any(-1)], 0).tolist() == [4, 0]


def audio_file(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), np.float32)
        samples = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


def of_parts(path, *sides):
    """Join files of 6 frames. Their times begin anew."""
    parts = [
        Path(write_video(path.with_suffix(f".{n}.ts"), moving_square(6, side, side))).read_bytes()
        for n, side in enumerate(sides)
    ]
    path.write_bytes(b"".join(parts))
    return path


def turned_twice(path):
    plain, parts = write_video(path.with_suffix(".mp4"), moving_square(4)), []
    for degrees in (180, 90):
        turn = f"h264_metadata=display_orientation=insert:rotate={degrees}"
        part = copied(plain, path.with_suffix(f".{degrees}.mp4"), bitstream=turn)
        raw = copied(part, path.with_suffix(f".{degrees}.h264"), bitstream="h264_mp4toannexb")
        parts.append(raw.read_bytes())
    path.write_bytes(b"".join(parts))


def cut_off(path):
    write_video(path, moving_square(48, 128, 128), movflags="faststart")
    options = {"movflags": "faststart"}
    whole = copied(path, path.with_suffix(".whole.mp4"), options=options).read_bytes()
    path.write_bytes(whole[: int(0.7 * len(whole))])


def half_zeros(path):
    data = bytearray(Path(write_video(path, moving_square())).read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    start += int(0.4 * (end - start))
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


def without_rgb(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height = stream.width = 64
        stream.codec_context.colorspace = 10  # BT.2020 with constant luminance
        for image in moving_square(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


BAD = {
    "missing.mp4": (lambda path: None, "is not a file"),
    "empty.mp4": (lambda path: path.touch(), "cannot be read as a video"),
    "noise.mp4": (lambda path: path.write_bytes(bytes(range(256)) * 20), "cannot be read"),
    "notes.txt": (lambda path: path.write_text("not a video\n" * 50), "has no video"),
    "sound.m4a": (audio_file, "has no video"),
    "list.mp4": (lambda path: path.write_text("ffconcat version 1.0\nfile a.ts\n"), "cannot be"),
    "fifo.mp4": (os.mkfifo, "is not a file"),
    "sizes.ts": (
        lambda path: of_parts(path, 64, 96),
        "size or the rotation of its pictures changes at picture 6",
    ),
    "turns.h264": (turned_twice, "size or the rotation of its pictures changes at picture 4"),
    "cut.mp4": (cut_off, "of 48 packets do not decode"),
    "zeros.mp4": (half_zeros, "of 24 packets do not decode"),
    "colours.mp4": (without_rgb, r"cannot convert its colours \(space 10\)"),
    "secret.mp4": (
        lambda path: encrypt(write_video(path.with_suffix(".plain.mp4"), moving_square(4)), path),
        "is encrypted",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, name):
    make, says = BAD[name]
    make(tmp_path / name)
    works = (probe, source_track, lambda path: read(path, motion=False))
    # Packets are not decoded.
    if name in ("missing.mp4", "empty.mp4", "noise.mp4", "notes.txt", "sound.m4a"):
        works += (packets, lambda path: blocks(path, [0]))
    for work in works:
        with pytest.raises(UserError, match=f"{name}: .*{says}") as error:
            work(tmp_path / name)
        assert "\n" not in str(error.value)


def test_frames_that_are_not_there_are_one_line(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(6))
    for frames, says in (([6], "has 6 frames, and no frame 6"), ([], "pass"), ([0.7], "pass")):
        with pytest.raises(UserError, match=says):
            read(path, frames)


def test_a_name_like_an_address_and_a_title_in_another_encoding_are_no_errors(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = Path(write_video(tmp_path / "v.mp4", moving_square(4)))
    shutil.copy(path, "http:v.mp4")
    assert probe("http:v.mp4").frames == 4
    with av.open("title.mkv", "w") as out, av.open(str(path)) as given:
        out.metadata["title"] = "caf\u00e9"
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    latin = Path("title.mkv").read_bytes().replace("caf\u00e9".encode(), b"caf\xe9 ")
    Path("title.mkv").write_bytes(latin)
    assert probe("title.mkv").frames == 4
