"""The probe kinds: four ways to classify frozen features.

`logistic`: logistic regression to convergence on standardised features; the penalty is chosen on
    videos held out of the training split. Ours, and the default.
`sgd`: MAE's linear probe (He et al., 2022): the same model by SGD with momentum, 90 epochs.
`attentive`: V-JEPA's probe (Bardes et al., 2024): one learned query attends to a clip's tokens.
`knn`: DINO's weighted k-nearest neighbours (Caron et al., 2021): nothing is trained.

A kind takes the training features, the test features and the number of classes. It returns the
logits of the test clips, (N, classes), and the setting that it chose. Nothing is ever chosen on the
test split.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from mgm import rng
from mgm.errors import UserError
from mgm.spec import Probe
from mgm.stages.features import Split

# Weights of the mean squared weight, next to the mean cross-entropy.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.2

SGD_EPOCHS, SGD_WARMUP = 90, 10  # MAE: main_linprobe.py
# Per 256 clips. MAE's 0.1 is for LARS; DINO and V-JEPA 2 choose the rate from a list too.
SGD_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SGD_BATCH = 256

ATTENTIVE_EPOCHS = 20  # V-JEPA
# V-JEPA's rate is 1e-3; V-JEPA 2 chooses from five around it.
ATTENTIVE_RATES = (3e-4, 1e-3, 3e-3)
ATTENTIVE_DECAY = 0.01  # V-JEPA: configs/evals
ATTENTIVE_BATCH = 64
# V-JEPA trains on 240,000 videos. 20 epochs of a few hundred clips would be too few steps.
ATTENTIVE_STEPS = 300

TEMPERATURE = 0.07  # DINO: eval_knn.py
KNN_ROWS, KNN_COLUMNS = 1024, 16384  # of a block of similarities: 64 MB
KNN_GROUP = 32  # similarities of a row that are compared at once


class Training(NamedTuple):
    """Training features of one draw of labels: the clips `kept_N` of a split, with their labels.

    `unit_N` counts the draw's videos from 0, or their groups (`Probe.held_out`): clips of one unit
    are held out together.
    """

    split: Split
    kept_N: Tensor
    label_N: Tensor
    unit_N: Tensor

    @property
    def pooled(self) -> Tensor:
        """Return the (N, D) means of these clips' tokens."""
        return self.split.x_ND[self.kept_N]


Kind = Callable[[Training, Split, int, Probe], tuple[Tensor, dict[str, float]]]


def logistic(
    train: Training, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Fit logistic regression to convergence, with the penalty that held-out videos choose."""
    x_ND = train.pooled.double()
    penalty = choose_penalty(x_ND, train.label_N, train.unit_N, classes, spec.seed)
    return fit(x_ND, train.label_N, classes, penalty)(test.x_ND.double()), {"penalty": penalty}


def fit(x_ND: Tensor, label_N: Tensor, classes: int, penalty: float):
    """Fit logistic regression on standardised features, to convergence.

    BatchNorm without affine, seen over the whole set at once, is this standardisation.

    Returns:
        A function from features to logits.
    """
    variance_D, mean_D = torch.var_mean(x_ND, dim=0, correction=0)
    scale_D = (variance_D + 1e-6).rsqrt()
    normal_ND = (x_ND - mean_D) * scale_D
    one_hot_NC = F.one_hot(label_N, classes).to(x_ND.dtype)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross-entropy plus the penalty, and its gradient."""
        weight_CD, bias_C = torch.from_numpy(flat).split([classes * x_ND.shape[1], classes])
        weight_CD = weight_CD.view(classes, -1)
        log_NC = F.linear(normal_ND, weight_CD, bias_C).log_softmax(1)
        error_NC = (log_NC.exp() - one_hot_NC) / len(x_ND)
        gradient = torch.cat(
            [(error_NC.T @ normal_ND + penalty * weight_CD).flatten(), error_NC.sum(0)]
        )
        return -(log_NC * one_hot_NC).sum().item() / len(
            x_ND
        ) + penalty * weight_CD.square().sum().item() / 2, gradient.numpy()

    start = np.zeros(classes * (x_ND.shape[1] + 1))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-6, "ftol": 0}
    )
    weight, bias = torch.from_numpy(found.x).split([classes * x_ND.shape[1], classes])
    weight = weight.view(classes, -1)
    return lambda x_ND: F.linear((x_ND - mean_D) * scale_D, weight, bias)


def choose_penalty(x_ND: Tensor, label_N: Tensor, unit_N: Tensor, classes: int, seed: int) -> float:
    """Return the penalty with the best held-out accuracy; the stronger one of equals."""
    held_N = held_out(unit_N, seed)
    accuracies = {}
    for penalty in PENALTIES:
        logits_NC = fit(x_ND[~held_N], label_N[~held_N], classes, penalty)(x_ND[held_N])
        accuracies[penalty] = (logits_NC.argmax(dim=1) == label_N[held_N]).double().mean().item()
    return max(PENALTIES, key=lambda penalty: (accuracies[penalty], penalty))


def held_out(unit_N: Tensor, seed: int) -> Tensor:
    """Mark the clips of a fifth of the units: videos, or groups of them.

    Raises:
        UserError: there are too few.
    """
    units = int(unit_N.max()) + 1
    held = rng.generator(rng.clip_seed(seed, 0, -2), "labels").permutation(units)[
        : round(HELD_OUT * units)
    ]
    if len(held) == 0:
        raise UserError(
            f"the training split has {units} videos or groups, too few to hold any out; a probe "
            "needs at least 3 (held_out: videos counts videos)"
        )
    return torch.isin(unit_N, torch.as_tensor(held))


def sgd(train: Training, test: Split, classes: int, spec: Probe) -> tuple[Tensor, dict[str, float]]:
    """Train MAE's linear probe: BatchNorm without affine, one linear layer, SGD with momentum.

    BatchNorm takes its mean and variance over the whole training set, not over a batch.
    """
    x_ND, held_N = train.pooled.float(), held_out(train.unit_N, spec.seed)

    def trained(x_ND: Tensor, label_N: Tensor, rates: tuple[float, ...]):
        variance_D, mean_D = torch.var_mean(x_ND, dim=0, correction=0)
        scale_D = (variance_D + 1e-6).rsqrt()
        weight_RDC, bias_RC = _sgd_weights(
            (x_ND - mean_D) * scale_D, label_N, classes, rates, spec.seed
        )
        return lambda x_ND: torch.baddbmm(
            bias_RC[:, None], ((x_ND - mean_D) * scale_D).expand(len(rates), -1, -1), weight_RDC
        )

    logits_RNC = trained(x_ND[~held_N], train.label_N[~held_N], SGD_RATES)(x_ND[held_N])
    accuracy_R = (logits_RNC.argmax(dim=2) == train.label_N[held_N]).float().mean(dim=1)
    rate = SGD_RATES[int(accuracy_R.argmax())]  # the lower one of equals
    return trained(x_ND, train.label_N, (rate,))(test.x_ND.float())[0], {"rate": rate}


def _sgd_weights(
    x_ND: Tensor, label_N: Tensor, classes: int, rates: tuple[float, ...], seed: int
) -> tuple[Tensor, Tensor]:
    """Train a linear layer at each rate, all of them on the same batches."""
    count, width = x_ND.shape
    batch = min(SGD_BATCH, count)
    order = torch.Generator().manual_seed(seed)
    weight_RDC = 0.01 * torch.randn(width, classes, generator=order).repeat(len(rates), 1, 1)
    bias_RC = torch.zeros(len(rates), classes)
    of_weight, of_bias = torch.zeros_like(weight_RDC), torch.zeros_like(bias_RC)
    base_R = torch.tensor(rates) * batch / 256
    epoch_steps = count // batch
    for step in range(SGD_EPOCHS * epoch_steps):
        if step % epoch_steps == 0:
            order_N = torch.randperm(count, generator=order)
        start = step % epoch_steps * batch
        own_B = order_N[start : start + batch]
        x_BD, target_BC = x_ND[own_B], F.one_hot(label_N[own_B], classes)
        logits_RBC = torch.baddbmm(bias_RC[:, None], x_BD.expand(len(rates), -1, -1), weight_RDC)
        # The gradient of the mean cross-entropy with respect to the logits.
        error_RBC = (logits_RBC.softmax(dim=2) - target_BC) / batch
        rate_R = base_R * _schedule(step / epoch_steps, SGD_WARMUP, SGD_EPOCHS)
        of_weight.mul_(0.9).add_(x_BD.T @ error_RBC)
        of_bias.mul_(0.9).add_(error_RBC.sum(dim=1))
        weight_RDC -= rate_R[:, None, None] * of_weight
        bias_RC -= rate_R[:, None] * of_bias
    return weight_RDC, bias_RC


def _schedule(epoch: float, warmup: float, epochs: float) -> float:
    """Return the share of the learning rate: linear warm-up, then half a cosine to 0."""
    if epoch < warmup:
        return epoch / warmup
    return (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2


def attentive(
    train: Training, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Train V-JEPA's probe: a cross-attention block of depth 1 with one query, a linear layer.

    AdamW, 20 epochs, cosine to 0, weight decay 0.01; the rate is chosen on held-out videos.
    """
    assert train.split.tokens_NLD is not None and test.tokens_NLD is not None
    tokens_NLD, place_N = train.split.tokens_NLD, train.kept_N.nonzero()[:, 0]
    held_N = held_out(train.unit_N, spec.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def trained(kept_N: Tensor, rates: tuple[float, ...]) -> list["AttentiveProbe"]:
        own_N, label_N = place_N[kept_N], train.label_N[kept_N]
        return _train_attentive(tokens_NLD, own_N, label_N, classes, rates, spec, device)

    def accuracy(logits_NC: Tensor) -> float:
        return (logits_NC.argmax(dim=1) == train.label_N[held_N]).float().mean().item()

    probes = trained(~held_N, ATTENTIVE_RATES)
    accuracies = [accuracy(logits) for logits in _logits(probes, tokens_NLD, place_N[held_N])]
    rate = ATTENTIVE_RATES[int(np.argmax(accuracies))]  # the lower one of equals
    chosen = trained(torch.ones_like(held_N), (rate,))
    return _logits(chosen, test.tokens_NLD, torch.arange(len(test.x_ND)))[0], {"rate": rate}


class AttentiveProbe(nn.Module):
    """V-JEPA's attentive classifier on tokens that are already normalised (`features`).

    With one query q, keys and values of single tokens are never needed. A head's scores are
    q' Wk x = (Wk' q)' x, and its output is Wv (sum of a x): both take one D-vector per head. This
    costs 2 L D H multiply-adds per clip in place of 2 L D D.
    """

    def __init__(self, width: int, heads: int, classes: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.v = nn.Linear(width, width), nn.Linear(width, width)
        # A bias of the keys would add the same to all scores of a head, which changes nothing.
        self.k = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        with torch.no_grad():  # V-JEPA rescales the last layers of both branches
            self.proj.weight.div_(math.sqrt(2.0))
            self.fc2.weight.div_(math.sqrt(2.0))

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        width = len(self.query)
        q_HE = self.q(self.query).view(self.heads, -1) / math.sqrt(width // self.heads)
        key_HD = torch.einsum("he,hed->hd", q_HE, self.k.weight.view(self.heads, -1, width))
        score_BLH = tokens_BLD @ (key_HD * self.norm1.weight).T
        seen_BHD = score_BLH.softmax(dim=1).transpose(1, 2) @ tokens_BLD
        seen_BHD = seen_BHD * self.norm1.weight + self.norm1.bias
        value_BHE = torch.einsum(
            "bhd,hed->bhe", seen_BHD, self.v.weight.view(self.heads, -1, width)
        )
        x_BD = self.query + self.proj(value_BHE.flatten(1) + self.v.bias)
        return self.head(x_BD + self.fc2(F.gelu(self.fc1(self.norm2(x_BD)))))


def _train_attentive(
    tokens_NLD: np.ndarray,
    own_N: Tensor,
    label_N: Tensor,
    classes: int,
    rates: tuple[float, ...],
    spec: Probe,
    device: torch.device,
) -> list[AttentiveProbe]:
    """Train a probe at each rate, all of them from the same weights on the same batches."""
    probes = list[AttentiveProbe]()
    for _ in rates:
        torch.manual_seed(spec.seed)
        probes.append(AttentiveProbe(spec.model.width, spec.model.heads, classes).to(device))
    optimisers = [
        torch.optim.AdamW(probe.parameters(), lr=rate, weight_decay=ATTENTIVE_DECAY)
        for probe, rate in zip(probes, rates, strict=True)
    ]
    count, batch = len(own_N), min(ATTENTIVE_BATCH, len(own_N))
    steps = max(ATTENTIVE_STEPS, ATTENTIVE_EPOCHS * (count // batch))
    order, queue = torch.Generator().manual_seed(spec.seed), torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(queue) < batch:
            queue = torch.cat([queue, torch.randperm(count, generator=order)])
        drawn_B, queue = queue[:batch], queue[batch:]
        x_BLD = _tokens(tokens_NLD, own_N[drawn_B], device)
        label_B = label_N[drawn_B].to(device)
        for probe, optimiser, rate in zip(probes, optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * _schedule(step, 0, steps)
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(probe(x_BLD), label_B).backward()
            optimiser.step()
    return probes


@torch.no_grad()
def _logits(probes: list[AttentiveProbe], tokens_NLD: np.ndarray, place_N: Tensor) -> list[Tensor]:
    """Return each probe's logits of these clips, from one pass over their tokens."""
    device = probes[0].query.device
    found: list[list[Tensor]] = [[] for _ in probes]
    for place_B in place_N.split(ATTENTIVE_BATCH):
        x_BLD = _tokens(tokens_NLD, place_B, device)
        for probe, own in zip(probes, found, strict=True):
            own.append(probe(x_BLD).cpu())
    return [torch.cat(own) for own in found]


def _tokens(tokens_NLD: np.ndarray, place_B: Tensor, device: torch.device) -> Tensor:
    return torch.from_numpy(tokens_NLD[place_B.numpy()]).to(device).float()


def knn(train: Training, test: Split, classes: int, spec: Probe) -> tuple[Tensor, dict[str, float]]:
    """Let the nearest training clips vote, by cosine similarity s with weight exp(s / 0.07).

    Returns:
        Logarithms of the votes: their softmax is each class's share of them.
    """
    if (k := spec.neighbours) > (count := len(train.label_N)):
        raise UserError(f"neighbours is {k}, but there are {count} training clips; lower it")
    similarity_NK, place_NK = nearest(test.x_ND, train.pooled, k)
    weight_NK = ((similarity_NK - 1) / TEMPERATURE).exp()
    votes_NC = torch.zeros(len(test.x_ND), classes)
    votes_NC.scatter_add_(1, train.label_N[place_NK], weight_NK)
    return votes_NC.log(), {}


def nearest(query_ND: Tensor, x_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the cosine similarities and places (N, k) of each query's nearest rows.

    Similarities are computed block by block, so that memory does not grow with either set.
    """
    query_ND, x_MD = F.normalize(query_ND.float()), F.normalize(x_MD.float())
    similarities, places = list[Tensor](), list[Tensor]()
    for rows_BD in query_ND.split(KNN_ROWS):
        best, place = list[Tensor](), list[Tensor]()
        for start in range(0, len(x_MD), KNN_COLUMNS):
            own, at = _largest(rows_BD @ x_MD[start : start + KNN_COLUMNS].T, k)
            best.append(own)
            place.append(at + start)
        similarity_BK, at_BK = torch.cat(best, dim=1).topk(k, dim=1)
        similarities.append(similarity_BK)
        places.append(torch.cat(place, dim=1).gather(1, at_BK))
    return torch.cat(similarities), torch.cat(places)


def _largest(x_BM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row, or all of a shorter one, and their places.

    They lie in the k groups with the largest maxima. Finding these reads the row once, while topk
    on the whole row takes half as long as the matrix product that made it.
    """
    count = x_BM.shape[1]
    if count % KNN_GROUP or count // KNN_GROUP < 2 * k:
        return x_BM.topk(min(k, count), dim=1)
    x_BGE = x_BM.unflatten(1, (-1, KNN_GROUP))
    group_BK = x_BGE.amax(dim=2).topk(k, dim=1).indices
    candidate_BKE = x_BGE.gather(1, group_BK[..., None].expand(-1, -1, KNN_GROUP))
    value_BK, at_BK = candidate_BKE.flatten(1).topk(k, dim=1)
    place_BK = group_BK.gather(1, at_BK // KNN_GROUP) * KNN_GROUP + at_BK % KNN_GROUP
    return value_BK, place_BK


KINDS: dict[str, Kind] = {"logistic": logistic, "sgd": sgd, "attentive": attentive, "knn": knn}
