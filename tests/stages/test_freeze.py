import pytest
from safetensors.torch import load_file

from mgm.errors import UserError
from mgm.spec import Pretrain, parse
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all


def test_frozen_blocks_keep_the_parents_weights_and_the_rest_learns(execution, pretraining):
    short = pretraining.optim.model_copy(update={"steps": 2, "warmup_epochs": 0})
    parent = pretraining.model_copy(update={"optim": short})
    child = parent.model_copy(update={"parent": parent.run_id, "freeze_blocks": 1, "seed": 5})
    run_all([parent, child], pretrain, execution)
    before, after = (
        load_file(execution.results / spec.run_id / "weights.safetensors")
        for spec in (parent, child)
    )
    same = {name for name in before if before[name].equal(after[name])}
    frozen = ("encoder.patch_embed.", "encoder.blocks.0.")
    assert {name for name in before if name.startswith(frozen)} == same


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"freeze_blocks": 1}, "freeze_blocks is 1, .*parent"),
        ({"freeze_blocks": 3, "parent": "external-0"}, "freeze_blocks is 3, .* 2 blocks"),
    ],
)
def test_blocks_that_cannot_be_frozen_are_one_line(pretraining, fields, said):
    with pytest.raises(UserError, match=said):
        parse(pretraining.model_dump(mode="json") | fields, "spec.json")


def test_a_run_without_frozen_blocks_keeps_its_id(pretraining):
    assert Pretrain(**pretraining.model_dump()).run_id == pretraining.run_id
