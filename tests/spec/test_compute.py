"""The formula for multiply-adds, compared with PyTorch's counter on the models."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mgm.masking import Grid, make_mask
from mgm.models import build_classifier, build_frozen_encoder, build_mae
from mgm.spec import Clips, Data, Decoder, Finetune, Mask, Model, Pretrain, Probe
from mgm.spec.compute import kept_bytes, multiply_adds

SSV2 = Data(dataset="ssv2")
SIZES = {
    "small": (Clips(frames=4, size=24), Model(width=16, depth=2, heads=2, patch=8)),
    "wide": (Clips(frames=8, size=32), Model(width=96, depth=1, heads=4, patch=8)),
    "deep": (Clips(frames=6, size=48), Model(width=24, depth=5, heads=3, patch=8, tubelet=3)),
    "timesformer": (
        Clips(frames=8, size=40),
        Model(backbone="timesformer", width=32, depth=3, heads=2, patch=8),
    ),
}


@pytest.fixture(params=SIZES)
def sizes(request):
    clips, model = SIZES[request.param]
    return {"clips": clips, "model": model}


def counted(run) -> float:
    """Return the multiply-adds of a forward pass. PyTorch counts two operations for each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def frames(spec, clips=1):
    return torch.zeros(
        clips, spec.clips.frames, spec.clips.size, spec.clips.size, 3, dtype=torch.uint8
    )


def test_views(sizes):
    spec = Finetune(data=SSV2, **sizes)
    assert multiply_adds(spec, classes=7) == counted(
        lambda: build_classifier(spec, 7)(frames(spec))
    )
    attentive = Finetune(data=SSV2, **sizes, head="attentive")
    model = build_classifier(attentive, 7)
    # The clips of a batch share the query.
    one, two = (counted(lambda n=n: model(frames(attentive, n))) for n in (1, 2))
    assert multiply_adds(attentive, classes=7) == two - one
    probe = Probe(data=SSV2, **sizes)
    assert multiply_adds(probe) == counted(lambda: build_frozen_encoder(probe)(frames(probe)))


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_pretraining(sizes, ratio):
    spec = Pretrain(
        data=SSV2,
        decoder=Decoder(width=20, depth=2, heads=2),
        mask=Mask(name="agnostic", ratio=ratio),
        **sizes,
    )
    masked_BL = make_mask(
        Mask(name="agnostic", ratio=ratio), Grid(*spec.grid), None, np.zeros(1, np.int64)
    )
    masked_BL = torch.from_numpy(masked_BL)
    assert multiply_adds(spec) == counted(lambda: build_mae(spec).predict(frames(spec), masked_BL))


@pytest.mark.parametrize(
    ("ratio", "hidden", "official", "ours"), [(0.75, 147, 57.4, 55.0), (0.9, 176, 35.4, 33.4)]
)
def test_pretraining_vit_b(ratio, hidden, official, ours):
    """Equal epochs are not equal compute.

    The official code embeds hidden tubelets and then drops them. Its decoder's last block also
    computes visible tokens, whose output is not used. Ours does neither.
    """
    spec = Pretrain(data=SSV2, mask=Mask(ratio=ratio))
    cost = multiply_adds(spec)
    embedding_hidden = 8 * hidden * (3 * 2 * 16 * 16) * 768
    visible_in_last_block = 8 * (196 - hidden) * (10 * 384**2 + 2 * 1568 * 384)
    theirs = cost + embedding_hidden + visible_in_last_block
    assert theirs / 1e9 == pytest.approx(official, abs=0.05)
    assert cost / 1e9 == pytest.approx(ours, abs=0.05)


def test_memory_is_what_the_compiler_counts():
    """PyTorch 2.15's partitioner, for ViT-B at 16 x 224 x 224: MiB per clip."""
    specs = [Pretrain(data=SSV2, mask=Mask(name="tube", ratio=ratio)) for ratio in (0.9, 0.75)]
    for spec, counted in zip([*specs, Finetune(data=SSV2)], (144, 209, 473)):
        assert kept_bytes(spec) / 2**20 == pytest.approx(counted, rel=0.02)
        assert kept_bytes(spec, recompute=True) < kept_bytes(spec) / 4
