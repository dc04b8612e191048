"""Fuzz the options for bare weights, and text files in any encoding.

Each input has the right result, or an error of one line.
"""

import re

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mgm.errors import UserError, valid
from mgm.models import build_classifier, save_weights
from mgm.reading import read_json, read_table, read_text, read_yaml
from mgm.spec import ApplyOptions, Clips, Data, Finetune, Model, PredictOptions
from mgm.stages.apply import find_trained, predict
from tests.helpers.videos import moving_square, write_video

pytestmark = pytest.mark.slow
SPEC = Finetune(
    data=Data(dataset="folder"),
    clips=Clips(frames=4, size=24, stride=2),
    model=Model(width=16, depth=2, heads=2, patch=8),
)
KERNEL = "encoder.patch_embed.proj.weight"
SHORT = ApplyOptions(frames=4, size=24, stride=2)
number = st.one_of(st.integers(-3, 64), st.integers(-(10**12), 10**12))


def inputs(count: int):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.generate],
    )


def one_line_or(result):
    message = "a message"
    try:
        return result()
    except UserError as error:
        message = str(error)
        return None
    finally:
        assert message.strip()
        assert message.isprintable()
        assert len(message) < 2000


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    path = tmp_path_factory.mktemp("bare") / "w.safetensors"
    save_weights(build_classifier(SPEC, 2), path)
    return path


@inputs(60)
@given(st.tuples(number, number, number, number))
def test_options(bare, asked):
    names = ("frames", "size", "stride", "temporal")

    def options():
        with valid("--"):
            return ApplyOptions(**dict(zip(names, asked)), spatial=3)

    how = one_line_or(options)
    if how is None:
        return
    found = one_line_or(lambda: find_trained(bare, how))
    assert found is None or (found.clips.size % 8, found.clips.frames % 2) == (0, 0)


@inputs(8)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=6))
def test_bits(bare, tmp_path, bits):
    """Weights with flipped bits have finite predictions, or are refused."""
    content = bytearray(bare.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    for place, bit in bits:
        content[start + int(place * (len(content) - start))] ^= 1 << bit
    (tmp_path / "w.safetensors").write_bytes(content)
    if not (tmp_path / "videos").exists():
        (tmp_path / "videos").mkdir()
        write_video(tmp_path / "videos" / "a.mp4", moving_square(frames=8, height=32, width=32))
    how = PredictOptions(frames=4, size=24, stride=2, temporal=1, spatial=1, force=True)
    weights, out = tmp_path / "w.safetensors", tmp_path / "out.csv"
    if one_line_or(lambda: predict(tmp_path / "videos", weights, out, None, how)):
        assert not {"nan", "inf"} & set(re.split(r"\W+", out.read_text()))


@inputs(60)
@given(st.lists(st.integers(0, 70), min_size=3, max_size=6), st.integers(0, 3))
def test_shapes(tmp_path, shape, blocks):
    weights = {KERNEL: torch.zeros([min(side, 9) for side in shape])}
    weights |= {f"encoder.blocks.{n}.norm1.weight": torch.zeros(1) for n in range(blocks)}
    save_file(weights, tmp_path / "w")
    assert one_line_or(lambda: find_trained(tmp_path / "w", SHORT)) is None


@inputs(200)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.tuples(
            st.text(max_size=30), st.sampled_from(["latin-1", "utf-16", "utf-32", "utf-8"])
        ).map(lambda pair: pair[0].encode(pair[1], errors="replace")),
    )
)
def test_encodings(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    for read in (read_text, read_json, read_yaml, lambda path: list(read_table(path))):
        one_line_or(lambda read=read: read(tmp_path / "x"))
