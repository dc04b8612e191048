import re
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgm.errors import UserError
from mgm.masking import Grid, largest_motion, summed_motion
from mgm.masking import make_boxes as boxes_of
from mgm.masking import make_mask as make
from mgm.masking.draws import topk_mask
from mgm.masking.paper import agnostic, tube
from mgm.spec import MASKS, Mask, mask_info
from tests.helpers import slow_masks as slow

GRID = Grid(8, 14, 14)
SLOW = [name for name in MASKS if slow.function_of(name)]
names = st.sampled_from(list(MASKS))


def moved(motion):
    """Return (dx, dy) for the magnitudes: up to two thirds of the frame, also out of it."""
    angle = np.arange(motion.size, dtype=np.float32).reshape(motion.shape) * 2.4
    share = (motion / max(motion.max(), 1))[..., None]
    return np.stack((np.cos(angle), np.sin(angle)), -1) * share * 0.66


def make_mask(name, grid, ratio, seeds, motion=None, displacement=None, **settings):
    if motion is not None and displacement is None:
        displacement = moved(motion)
    return make(Mask(name=name, ratio=ratio, **settings), grid, motion, seeds, displacement)


def make_boxes(name, grid, ratio, seeds, motion=None, **settings):
    return boxes_of(Mask(name=name, ratio=ratio, **settings), grid, motion, seeds)


@st.composite
def problems(draw, max_clips=4):
    """Draw a grid, a mask ratio, seeds, and motion with ties, static slots and static clips."""
    grid = Grid(draw(st.integers(1, 5)), draw(st.integers(1, 8)), draw(st.integers(2, 8)))
    ratios = [r for r in (0.1, 0.3, 0.5, 0.75, 0.9) if int(r * grid.patches)]
    ratio = draw(st.sampled_from(ratios or [0.5]))
    clips = draw(st.integers(1, max_clips))
    seeds = np.array(draw(st.lists(st.integers(0, 2**63 - 1), min_size=clips, max_size=clips)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([(1, 1), (2, 2), (0.5, 0.5), (1.7, 3)]))
    rows, columns = max(1, int(grid.height * size[0])), max(1, int(grid.width * size[1]))
    motion = rng.integers(
        0, draw(st.sampled_from([2, 4, 1000])), (clips, grid.slots, rows, columns)
    ) * rng.random((clips, grid.slots, 1, 1))
    motion *= rng.random((clips, grid.slots, 1, 1)) < 0.7
    return grid, ratio, seeds, motion.astype(np.float32)


@pytest.mark.parametrize("name", SLOW)
@settings(max_examples=20, deadline=None)
@given(problem=problems(), jitter=st.booleans())
def test_equals_the_slow_transcription(name, problem, jitter):
    (grid, ratio, seeds, motion), jitter = problem, jitter or name != "mgm"
    fast = make_mask(name, grid, ratio, seeds, motion, jitter=jitter).reshape(
        len(seeds), grid.slots, -1
    )
    for clip, seed in enumerate(seeds.tolist()):
        expected = slow.mask(name, grid, ratio, seed, motion[clip], jitter, moved(motion)[clip])
        np.testing.assert_array_equal(fast[clip], expected)


@settings(max_examples=60, deadline=None)
@given(problems(max_clips=6), names)
def test_a_clips_mask_ignores_its_batch(problem, name):
    grid, ratio, seeds, motion = problem
    together = make_mask(name, grid, ratio, seeds, motion)
    for i in range(len(seeds)):
        own = slice(i, i + 1)
        alone = make_mask(name, grid, ratio, seeds[own], motion[own], moved(motion)[own])
        assert np.array_equal(alone[0], together[i])
    turned = make_mask(
        name, grid, ratio, seeds[::-1], motion[::-1], displacement=moved(motion)[::-1]
    )
    assert np.array_equal(turned[::-1], together)


def test_jitter_sums_to_zero_and_changes_the_aspect_ratio(rng):
    seeds = np.arange(50) * 7919
    motion = rng.integers(0, 6, (50, 8, 28, 28)).astype(np.float32)
    boxes = make_boxes("mgm", GRID, 0.75, seeds, motion)
    for size in (boxes.width_BS, boxes.height_BS):
        assert np.allclose(size[:, -1], size[:, 0], atol=1e-4)  # eq. 7: the jitters sum to zero
        assert np.abs(np.diff(size, axis=1)).max() <= 0.2 * 12.13
        assert size.std() > 0.3
    assert (boxes.width_BS / boxes.height_BS)[:, 1:-1].std() > 0.05
    constant = make_boxes("mgm", GRID, 0.75, seeds, motion, jitter=False)
    assert (constant.width_BS == constant.width_BS[0, 0]).all()
    assert not np.array_equal(
        make_mask("mgm", GRID, 0.75, seeds, motion),
        make_mask("mgm", GRID, 0.75, seeds, motion, jitter=False),
    )


SEEDS = np.arange(2)


@pytest.mark.parametrize("name", [name for name in MASKS if MASKS[name].guided])
def test_negative_motion_counts_as_none(name, rng):
    motion = rng.normal(size=(2, 8, 28, 28)).astype(np.float32)
    carried = moved(np.abs(motion))
    found = [make_mask(name, GRID, 0.75, SEEDS, x, carried) for x in (motion, motion.clip(0))]
    np.testing.assert_array_equal(*found)


BAD = [
    (("cube", GRID, None, SEEDS), "(got 'cube')"),
    ((Mask(name="tube", ratio=0.001), GRID, None, SEEDS), "0.001 hides 0"),
    (("tube", Grid(8, 1, 1), None, SEEDS), "0.75 hides 0"),
    (("tube", Grid(0, 14, 14), None, SEEDS), "0 x 14 x 14 is empty"),
    (("mgm", GRID, None, SEEDS), "'mgm' needs motion"),
    (("mgm-sparse", GRID, None, SEEDS), "'mgm-sparse' needs motion"),
    (("mgm", GRID, np.zeros((3, 8, 28, 28)), SEEDS), "(3, 8, 28, 28)"),
    (("mgm", GRID, np.zeros((2, 4, 28, 28)), SEEDS), "(2, 4, 28, 28)"),
    (("mgm", GRID, np.zeros((2, 8, 28)), SEEDS), "(2, 8, 28)"),
    (("tube", GRID, None, SEEDS.astype(np.float32)), "float32"),
    (
        ("warped", GRID, np.zeros((2, 8, 28, 28)), SEEDS),
        "'warped' needs displacement_BSHW2 of (2, 8, 28, 28, 2)",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_gives_one_clear_line(arguments, message):
    for function in (make, boxes_of):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            function(*arguments)
        assert "\n" not in str(caught.value)


def stripes(mask, grid, seed_B, magnitude_BSHW):
    """Hide the first K patches of every slot."""
    masked_BSN = np.zeros((len(seed_B), grid.slots, grid.patches), bool)
    masked_BSN[..., : mask.hidden(grid.patches)] = True
    return masked_BSN


@pytest.fixture
def own(monkeypatch):
    """Put a module with masks of one's own on the path."""
    module = ModuleType("my_masks")
    module.stripes = stripes
    module.counts = lambda mask, grid, seed_B: tube(mask, grid, seed_B) | True
    # As many in a clip, but not in each of its slots.
    module.uneven = agnostic
    module.numbers = lambda mask, grid, seed_B: tube(mask, grid, seed_B).astype(np.int8)
    module.flat = lambda mask, grid, seed_B: tube(mask, grid, seed_B).reshape(len(seed_B), -1)
    module.lists = lambda mask, grid, seed_B: [[True]]
    module.nothing = lambda mask, grid, seed_B: None
    # As if the map had a cell per patch.
    module.cells = lambda mask, grid, seed_B, magnitude_BSHW: topk_mask(
        magnitude_BSHW.reshape(-1, grid.slots, grid.patches), mask.hidden(grid.patches)
    )
    monkeypatch.setitem(sys.modules, "my_masks", module)


@pytest.mark.usefixtures("own")
def test_a_mask_of_ones_own_is_named_by_its_module_and_function():
    mask = Mask(name="my_masks:stripes", ratio=0.5)
    assert mask_info(mask.name).guided
    assert not mask_info("my_masks:counts").guided
    motion = np.zeros((2, 8, 28, 28))
    assert make(mask, GRID, motion, SEEDS).reshape(2, 8, 196)[..., :98].all()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("counts", "does not hide 147 patches in every slot"),
        ("uneven", "does not hide 147 patches in every slot"),
        ("numbers", "int8 of shape"),
        ("flat", "bool of shape (2, 1568)"),
        ("lists", "bool of shape (1, 1)"),
        ("nothing", "object of shape ()"),
        ("missing", "on the Python path"),
    ],
)
def test_a_wrong_mask_of_ones_own_is_refused(name, says):
    with pytest.raises(UserError, match=re.escape(says)):
        make(f"my_masks:{name}", GRID, None, SEEDS)


@pytest.mark.usefixtures("own")
def test_a_mask_of_ones_own_that_fails_is_named_with_its_line_and_the_sizes():
    with pytest.raises(UserError) as caught:
        make("my_masks:cells", GRID, np.zeros((2, 8, 28, 30)), SEEDS)
    for part in ("mask my_masks:cells: ", "test_masks.py:", "ValueError", "14 x 14", "28 x 30"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("rows", "columns"), [(14, 14), (28, 28), (34, 80), (5, 3)])
def test_motion_of_patches_is_that_of_their_cells(rows, columns):
    motion = np.zeros((1, 8, rows, columns))
    motion[0, 3, rows // 2, columns // 3] = 2.0
    for of_patches in (largest_motion, summed_motion):
        motion_BSN = of_patches(GRID, motion)
        assert motion_BSN.shape == (1, 8, 196)
        moving = np.flatnonzero(motion_BSN[0, 3])
        row, column = np.divmod(moving, 14)
        # Patches that touch the cell.
        assert (np.abs((row + 0.5) / 14 - (rows // 2 + 0.5) / rows) < 0.5 / 14 + 0.5 / rows).all()
        away = np.abs((column + 0.5) / 14 - (columns // 3 + 0.5) / columns)
        assert (away < 0.5 / 14 + 0.5 / columns).all()
        assert motion_BSN.sum() == motion_BSN[0, 3].sum()
    assert largest_motion(GRID, motion).max() == 2
