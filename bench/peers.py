"""Our work and that of peers: one generator of comparisons per bench.

Loading: a clip is 16 frames at stride 4 from a random start, cut by MultiScaleCrop and resized to
224. All readers open the file again for each clip, and read the same frames and crop. Ours also
reads the motion vectors, from tracks. The peers read the source files. Ours reads these, and also
the copies that `mgm prepare --copy mp4` makes from them.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from measuring import Comparison
from torch import Tensor

from mgm.data.copies import copy_videos
from mgm.data.folder import index_folder
from mgm.data.index import Index, Video
from mgm.data.prepare import prepare_tracks
from mgm.masking import Grid, make_mask
from mgm.models import build_mae
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD
from mgm.spec import Clips, Data, Mask, Pretrain
from mgm.training.efficiency import set_malloc_options
from mgm.training.optim import build_optimiser
from mgm.video.clip import cut_frames
from mgm.video.read import read
from mgm.video.transform import random_crop, training_indices

CLIPS, TUBELET = Clips(), 2


def ours(video: Video, index_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    crop = random_crop(CLIPS, video.height, video.width, seed)
    (clip,) = read(video, [index_T], [crop], CLIPS.size, "codec")
    return clip.frames_THWC, clip.known.magnitude(TUBELET)


def resized(frames_THWC: np.ndarray, seed: int) -> np.ndarray:
    crop = random_crop(CLIPS, *frames_THWC.shape[1:3], seed)
    return cut_frames(frames_THWC, crop, CLIPS.size)


def with_decord(video: Video, index_T: np.ndarray, seed: int) -> np.ndarray:
    import decord

    reader = decord.VideoReader(video.path, num_threads=1)
    return resized(reader.get_batch(index_T.clip(max=len(reader) - 1)).asnumpy(), seed)


def with_torchcodec(video: Video, index_T: np.ndarray, seed: int) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(video.path, num_ffmpeg_threads=1, dimension_order="NHWC")
    frames_THWC = decoder.get_frames_at(index_T.clip(max=len(decoder) - 1).tolist()).data.numpy()
    return resized(frames_THWC, seed)


Reader = Callable[[Video, np.ndarray, int], object]
# Peers that read videos, with goals: the ratio of their time to ours, if ours reads sources, and if
# it reads copies.
READERS = {"decord": (with_decord, 1.3, 8), "torchcodec": (with_torchcodec, 1.2, 5)}


def loader(repeats: int) -> Iterator[Comparison]:
    """Compare the CPU time to read a clip.

    A peer that cannot read a video is left out, with a message.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sources = draw(place)

        def turn(read: Reader, videos: Sequence[Video]) -> None:
            rng = np.random.default_rng(0)
            for video in videos:
                index_T = training_indices(CLIPS, video.frames, rng)
                read(video, index_T, int(rng.integers(1000)))

        readers = dict(READERS)
        for name, (read, *_) in READERS.items():
            try:
                turn(read, sources.videos)
            except (ImportError, OSError, RuntimeError) as error:
                print(f"{name} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
                del readers[name]
        copies = copy_videos(sources, place / "copies")
        kinds = {"source and track": sources, "mp4 copy and track": copies}
        for kind, index in kinds.items():
            against = {
                f"{name} on the sources": (
                    partial(turn, read, sources.videos),
                    of_copies if index is copies else least,
                )
                for name, (read, least, of_copies) in readers.items()
            }
            mine, clips = partial(turn, ours, index.videos), len(index.videos)
            name = f"a clip from {kind}"
            yield Comparison(name, mine, against, repeats, time.process_time, clips)


def draw(folder: Path) -> Index:
    """Draw four videos like K400: 340 x 256, 300 frames, groups of 250, about 0.7 Mbit/s."""
    height, width, frames = 256, 340, 300
    for number in range(4):
        rng = np.random.default_rng(number)
        place = folder / "drawn" / f"class{number % 2}" / f"{number}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        ground, *sprites = (texture(rng, 2 * height, 2 * width) for _ in range(3))
        ways = rng.uniform(-1, 1, (3, 2))
        with av.open(str(place), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"g": "250"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.bit_rate = 700_000
            for t in range(frames):
                shift = np.array([[1, 0, -width / 2], [0, 1, -height / 2]], np.float32)
                shift[:, 2] += 40 * np.sin(t / 60 + ways[0] * 6)
                picture_HWC = cv2.warpAffine(ground, shift, (width, height))
                for sprite, way in zip(sprites, ways[1:]):
                    y, x = (np.array([75, 110]) + 70 * np.sin(t / 12 * way + 6 * way)).astype(int)
                    picture_HWC[y : y + 90, x : x + 60] = sprite[y : y + 90, :60]
                picture_HWC = picture_HWC + rng.normal(0, 2, picture_HWC.shape)
                frame = picture_HWC.clip(0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))
    make = partial(index_folder, folder / "drawn")
    return prepare_tracks(make, folder / "index", processes=1)


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw noise with equal power per octave, as photographs have: (H, W, 3) uint8.

    The finest octave is left out. With it, a frame takes 32 kB as JPEG, and K400's take 16 to 25.
    """
    sum_HWC = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        coarse = rng.normal(0, 1, (2**octave, 2**octave, 3)).astype(np.float32)
        sum_HWC += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (128 + 18 * sum_HWC).clip(0, 255).astype(np.uint8)


def step_seconds(
    optimiser: Any, loss_of: Callable[[], Tensor], device: torch.device, bf16: bool
) -> float:
    """Return the seconds of one step: `loss_of()`, its gradients, and the optimiser."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    optimiser.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = loss_of()
    loss.backward()
    optimiser.step()
    wait()
    return time.perf_counter() - start


def hugging_face(spec: Pretrain, attention: str, frames_BTHWC: Tensor, masked_BL: Tensor) -> Any:
    """Return a fused AdamW and the loss of transformers' VideoMAE with a spec's sizes.

    The frames are normalised in advance.
    """
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    sizes = {"hidden_size": spec.model.width, "num_hidden_layers": spec.model.depth}
    sizes |= {"num_attention_heads": spec.model.heads, "intermediate_size": 4 * spec.model.width}
    for name, size in zip(
        list(sizes), (spec.decoder.width, spec.decoder.depth, spec.decoder.heads)
    ):
        sizes[f"decoder_{name}"] = size
    config = VideoMAEConfig(
        image_size=spec.clips.size,
        num_frames=spec.clips.frames,
        use_mean_pooling=False,
        attn_implementation=attention,
        decoder_intermediate_size=4 * spec.decoder.width,
        **sizes,
    )
    device = frames_BTHWC.device
    model = VideoMAEForPreTraining(config).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    mean, std = (torch.tensor(each, device=device) for each in (IMAGENET_MEAN, IMAGENET_STD))
    pixels_BTCHW = ((frames_BTHWC / 255 - mean) / std).permute(0, 1, 4, 2, 3).contiguous()
    return optimiser, lambda: model(pixel_values=pixels_BTCHW, bool_masked_pos=masked_BL).loss


def step(repeats: int, size: int = 224) -> Iterator[Comparison]:
    """Compare a pretraining step with Hugging Face's VideoMAE: same masks, one thread."""
    # Our jobs set these options. They are the process's, so the peer has them too.
    set_malloc_options()
    device, mask = torch.device("cpu"), Mask(name="tube")
    spec = Pretrain(data=Data(dataset="folder"), clips=Clips(size=size), mask=mask)
    masked_BL = torch.from_numpy(make_mask(mask, Grid(*spec.grid), None, np.arange(1)))
    shape = (1, spec.clips.frames, size, size, 3)
    frames_BTHWC = torch.randint(0, 256, shape, dtype=torch.uint8)
    weight_B = torch.ones(1)
    model = build_mae(spec).train()
    optimiser = build_optimiser(model, spec.optim)
    steps = {"ours": (optimiser, lambda: model(frames_BTHWC, masked_BL, weight_B)[0])}
    for attention in ("eager", "sdpa"):
        steps[attention] = hugging_face(spec, attention, frames_BTHWC, masked_BL)
    for bf16, eager in ((False, 1.5), (True, 1.2)):
        works = {name: partial(step_seconds, *parts, device, bf16) for name, parts in steps.items()}
        against = {
            "transformers, eager": (works["eager"], eager),
            "transformers, sdpa": (works["sdpa"], 1.0),
        }
        name = f"a step of ViT-B, {'bf16' if bf16 else 'float32'}"
        yield Comparison(name, works["ours"], against, repeats, time.process_time)
