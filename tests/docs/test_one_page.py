"""docs/recipes/pretrain.py, the method in one file, computes what the package computes."""

import os
import sys

import numpy as np
import pytest
import torch

import mgm
from mgm.masking import Grid, make_mask
from mgm.models import build_mae, gather_tokens, patchify, sinusoid_table
from mgm.rng import generator
from mgm.spec import Clips, Data, Decoder, Mask, Model, Optim, Pretrain
from mgm.training.optim import build_optimiser, learning_rate
from mgm.video.transform import training_indices
from tests.helpers.programs import RECIPES, ROOT, recipe, run

WALK = ROOT / "docs" / "walk.mp4"
SIZES = ("width", "depth", "heads")


@pytest.fixture(scope="module")
def page():
    return recipe("pretrain")


def spec_of(own) -> Pretrain:
    """Return the package's spec of a recipe of the page."""
    optim = {name: getattr(own, name) for name in ("batch", "epochs", "warmup_epochs", "min_lr")}
    return Pretrain(
        data=Data(dataset="ssv2"),
        clips=Clips(frames=own.frames, size=own.size, stride=own.stride, flip=own.flip),
        model=Model(backbone="page", **dict(zip(SIZES, own.encoder))),
        decoder=Decoder(**dict(zip(SIZES, own.decoder))),
        mask=Mask(name="mgm", ratio=own.ratio),
        optim=Optim(lr=own.base_lr, precision="float32", **optim),
    )


def far(own: torch.Tensor, known: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest value."""
    return ((own - known).abs().max() / known.abs().max().clamp(min=1e-30)).item()


def speeds(rng: np.random.Generator, kind: str, slots: int, cells: int) -> np.ndarray:
    """Return the speeds of a clip, of a kind that decides ties and slots without motion."""
    speed_SHW = rng.random((slots, cells, cells)).astype(np.float32)
    if kind == "ties":
        speed_SHW = np.floor(4 * speed_SHW)
    if kind == "few":
        speed_SHW = (speed_SHW > 0.98).astype(np.float32)
    if kind in ("few", "I-frames"):
        speed_SHW[rng.integers(slots, size=2)] = 0
    return speed_SHW * (kind != "static")


@pytest.mark.parametrize("kind", ["all move", "ties", "few", "I-frames", "static"])
def test_the_mask_is_the_packages_bit_for_bit(page, kind, rng):
    for slots, side, cells in ((8, 14, 28), (4, 6, 12), (16, 14, 56), (2, 16, 32), (1, 5, 9)):
        for ratio in (0.75, 0.9, 0.5):
            for seed in rng.integers(2**62, size=5):
                speed_SHW = speeds(rng, kind, slots, cells)
                own_SN = page.motion_guided_mask(speed_SHW, side, ratio, int(seed))
                mask, grid = Mask(name="mgm", ratio=ratio), Grid(slots, side, side)
                known_1L = make_mask(mask, grid, speed_SHW[None], seed[None])
                np.testing.assert_array_equal(own_SN.ravel(), known_1L[0])


def test_a_clip_and_its_mask_are_the_packages(page):
    torch.manual_seed(3)
    seed = int(torch.randint(2**31, ()))
    torch.manual_seed(3)
    frames_THWC, hidden_L = page.Clips([WALK], page.TOY)[0]
    index_T = training_indices(spec_of(page.TOY).clips, 30, generator(seed, "sample"))
    clip = mgm.read(WALK, index_T).cut_at_random(96, seed)
    np.testing.assert_array_equal(frames_THWC, clip.frames_THWC)
    np.testing.assert_array_equal(hidden_L, mgm.masks(clip, "mgm", seed).ravel())


def test_a_step_is_the_packages(page):
    """Float32 sums have another order here, so numbers differ by 1e-6 of the largest.

    A loss alone would miss a wrong gradient. AdamW's first step is the rate times the gradient's
    sign, wherever the gradient is far from zero.
    """
    spec, torch_threads = spec_of(page.TOY), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clips = page.Clips([WALK], page.TOY)
    batch = [clips[0] for _ in range(4)]
    frames_BTHWC = torch.from_numpy(np.stack([frames_THWC for frames_THWC, _ in batch]))
    hidden_BL = torch.from_numpy(np.stack([hidden_L for _, hidden_L in batch]))
    known, own = build_mae(spec), page.MaskedAutoencoder(page.TOY)
    own.load_state_dict(known.state_dict())
    torch.testing.assert_close(own.place_LD, sinusoid_table(144, 128)[0], rtol=0, atol=0)

    patches_BMPC = gather_tokens(patchify(frames_BTHWC, 2, 16), known.split(hidden_BL)[1])
    target_BMX = known.target(patches_BMPC)
    assert far(page.target(frames_BTHWC)[hidden_BL].view(target_BMX.shape), target_BMX) < 1e-6

    loss = own(frames_BTHWC, hidden_BL)
    known_loss, _ = known(frames_BTHWC, hidden_BL, torch.ones(4))
    loss.backward(), known_loss.backward()
    assert abs(loss.item() / known_loss.item() - 1) < 1e-6
    pairs = {name: (x, dict(known.named_parameters())[name]) for name, x in own.named_parameters()}
    for name, (x, y) in pairs.items():
        assert far(x.grad, y.grad) < 1e-5, name

    rate = 3e-3
    for optimiser in (page.build_optimiser(own), build_optimiser(known, spec.optim)):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    for name, (x, y) in pairs.items():
        assert (x - y).abs().max() < 0.01 * rate, name
        assert (x - y).abs().mean() < 1e-5 * rate, name
    torch.set_num_threads(torch_threads)


def test_the_recipe_is_the_packages(page):
    """Defaults of the package's specs are the paper's for Kinetics-400."""
    for own, steps in ((page.Recipe(), 900), (page.TOY, 300)):
        optim = spec_of(own).optim
        for step in range(steps):
            known = learning_rate(step, steps, optim)
            assert page.learning_rate(step, steps, own) == pytest.approx(known, rel=1e-12)
    paper = Pretrain(data=Data(dataset="k400"))
    assert spec_of(page.Recipe()).optim == paper.optim.model_copy(update={"precision": "float32"})
    assert spec_of(page.Recipe()).clips == paper.clips
    assert (spec_of(page.Recipe()).mask, paper.std_floor) == (paper.mask, 1e-6)
    for part, sizes in ((paper.model, page.Recipe.encoder), (paper.decoder, page.Recipe.decoder)):
        assert tuple(getattr(part, name) for name in SIZES) == sizes

    model, known = page.MaskedAutoencoder(page.TOY), build_mae(spec_of(page.TOY))
    initial = dict(known.named_parameters())
    for name, x in model.named_parameters():
        spread = initial[name].std().item()
        assert x.std().item() == pytest.approx(spread, rel=0.1), name
    decay = {
        id(x): (group["weight_decay"], group["betas"])
        for optimiser in (page.build_optimiser(model), build_optimiser(known, paper.optim))
        for group in optimiser.param_groups
        for x in group["params"]
    }
    for name, x in model.named_parameters():
        assert decay[id(x)] == decay[id(initial[name])], name


@pytest.mark.slow
def test_it_learns_from_one_video(page, tmp_path):
    """Its loss falls below that of predicting each patch's mean; `mgm.load` reads the weights."""
    words = [sys.executable, RECIPES / "pretrain.py", WALK, "--toy"]
    done = run(words, tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    losses = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines()]
    clips = page.Clips([WALK], page.TOY)
    batch = [clips[0] for _ in range(16)]
    frames_BTHWC, hidden_BL = (torch.from_numpy(np.stack(part)) for part in zip(*batch))
    trivial = page.target(frames_BTHWC)[hidden_BL].square().mean().item()
    assert np.mean(losses[-30:]) < trivial
    model = mgm.load(tmp_path / "mgm.pth", frames=8, size=96, stride=2)
    assert model.embed(WALK).shape == (128,)
