"""Model cards: metadata for hubs, and numbers of the table cells that use the weights."""

import pytest
from huggingface_hub import ModelCard

from mgm.report.card import model_card
from tests.helpers.fake_results import DIGEST, finish, registry

SCALE = registry(seeds=(0, 1))
CELL = SCALE.tables["4e"].cell("MGM (Dense)", "SSv2")
CHILD = CELL.runs[0]
PARENT = SCALE.specs[CHILD.parent]


@pytest.fixture
def results(tmp_path):
    (tmp_path / "scale.json").write_text(SCALE.scale.model_dump_json())
    for seed, run in enumerate(CELL.runs):
        finish(tmp_path, SCALE.specs[run.parent])
        finish(tmp_path, run, top1=60 + seed)
    return tmp_path


def card_of(results, spec) -> ModelCard:
    return ModelCard(model_card(results / spec.run_id, spec, "d" * 64, "transformers", "load it"))


@pytest.mark.parametrize("spec", [CHILD, PARENT], ids=["finetuned", "pretrained"])
def test_the_cells_that_rest_on_the_weights(results, spec):
    card = card_of(results, spec)
    mine = [
        one
        for one in card.data.eval_results
        if one.metric_name.startswith("top1: table 4e, MGM (Dense), SSv2 ")
    ]
    assert [(one.metric_type, one.metric_value, one.dataset_revision) for one in mine] == [
        ("accuracy", 60.0, DIGEST)
    ]
    assert mine[0].dataset_name == "SSv2 stand-in (generated)"
    assert (card.data.license, card.data.library_name, card.data.model_name) == (
        "apache-2.0",
        "transformers",
        spec.run_id,
    )
    row = next(
        line for line in card.text.splitlines() if line.startswith("| 4e | MGM (Dense) | SSv2 |")
    )
    # This seed's number, then the mean of 60.0 and 60.8 (146 of 240 videos).
    assert "| 60.0 | 60.4 [" in row
    assert all(told in card.text for told in (DIGEST, "d" * 64, SCALE.scale.caveat.split(".")[-2]))
