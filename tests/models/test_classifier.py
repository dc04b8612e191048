"""The attentive classifier, compared with V-JEPA's block in plain operations."""

import torch

from mgm.models import build_classifier, build_mae, load_encoder, save_weights
from mgm.models.classifier import AttentivePooler
from mgm.spec import Decoder, Finetune, Pretrain
from mgm.training.optim import parameter_groups
from tests.helpers.small_runs import SMALL

SPEC = Finetune(**SMALL, head="attentive")


def plain_block(weights, x_BLD, heads):
    """V-JEPA's block (a0517b4) in plain operations."""
    at, width = dict(weights), x_BLD.shape[2]

    def normal(x, name):
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * at[f"{name}.weight"] + at[f"{name}.bias"]

    seen_BLD = normal(x_BLD, "norm1")
    q_D = at["q.weight"] @ at["query"][0] + at["q.bias"]
    k_BLD = seen_BLD @ at["k.weight"].T
    v_BLD = seen_BLD @ at["v.weight"].T + at["v.bias"]
    per, outs = width // heads, []
    for head in range(heads):
        own = slice(head * per, (head + 1) * per)
        weight_BL = (k_BLD[..., own] @ q_D[own] / per**0.5).softmax(1)
        outs.append((weight_BL[..., None] * v_BLD[..., own]).sum(1))
    x_BD = at["query"] + torch.cat(outs, 1)
    hidden = normal(x_BD, "norm2") @ at["fc1.weight"].T + at["fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return x_BD + hidden @ at["fc2.weight"].T + at["fc2.bias"]


def test_the_pooler_is_the_block_that_it_abbreviates():
    torch.manual_seed(0)
    x_BLD = 3 * torch.randn(3, 7, 12) + 1
    pooler = AttentivePooler(12, 3)
    for parameter in pooler.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    wanted = plain_block(pooler.named_parameters(), x_BLD, 3)
    # Sums in another order.
    torch.testing.assert_close(pooler(x_BLD), wanted, rtol=1e-4, atol=1e-4)


def test_only_the_head_trains_and_its_query_decays():
    model = build_classifier(SPEC, 3)
    groups = parameter_groups(model, 0.01)
    decays = {id(x): group["weight_decay"] for group in groups for x in group["params"]}
    frames_BTHWC = torch.randint(256, (2, 4, 24, 24, 3), dtype=torch.uint8)
    loss, _ = model(frames_BTHWC, torch.tensor([0, 1]), torch.ones(2))
    loss.backward()
    for name, weight in model.named_parameters():
        trained = not name.startswith("encoder.")
        assert (id(weight) in decays) == (weight.grad is not None) == trained
        if trained:
            matrix = name == "pooler.query" or (name.endswith("weight") and "norm" not in name)
            assert (decays[id(weight)] > 0) == matrix


def test_the_encoder_is_that_of_a_pretrained_or_of_a_fine_tuned_file(tmp_path):
    mae = build_mae(Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2)))
    torch.nn.init.normal_(mae.encoder.norm.weight)
    for name, source in (
        ("pretrained", mae),
        ("tuned", build_classifier(Finetune(**SMALL), 5)),
        ("attentive", build_classifier(SPEC.model_copy(update={"seed": 3}), 5)),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_weights(source, path)
        model = build_classifier(SPEC.model_copy(update={"seed": 7}), 3)
        load_encoder(model, path)
        wanted = source.encoder.state_dict()
        found = model.encoder.state_dict()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        if name == "tuned":
            assert (found["norm.weight"] == 1).all()
