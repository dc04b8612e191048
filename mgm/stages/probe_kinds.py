"""The probe kinds: three ways to classify frozen features.

`logistic`: logistic regression on standardised features, fitted to convergence. The penalty is
    chosen on held-out training videos. Ours, and the default.
`v-jepa`: V-JEPA's probe (Bardes et al., 2024): one learned query attends to a clip's tokens.
`knn`: DINO's weighted k-nearest neighbours (Caron et al., 2021), without training.

A kind takes the training features, the test features and the number of classes. It returns the
logits of the test clips, (N, classes), and the setting that it chose. No setting is chosen on the
test split.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from mgm import rng
from mgm.errors import UserError
from mgm.spec import Probe
from mgm.stages.features import LabelledClips, Split
from mgm.stages.job import best_device

# Factors of half the sum of squared weights, which is added to the mean cross-entropy.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.2

ATTENTIVE_EPOCHS = 20  # V-JEPA
# V-JEPA's learning rate is 1e-3. V-JEPA 2 chooses from five rates around it.
ATTENTIVE_RATES = (3e-4, 1e-3, 3e-3)
ATTENTIVE_DECAY = 0.01  # V-JEPA: configs/evals
# V-JEPA trains on 240,000 videos. 20 epochs of a few hundred clips would be too few steps.
ATTENTIVE_STEPS = 300
ATTENTIVE_BATCH = 256  # V-JEPA has 64 processes of 4 clips
TESTED = 64  # clips of a forward pass without gradients
ATTENTIVE_CLIP, ATTENTIVE_LAST_DECAY = 1.0, 1e-6  # evals/video_classification_frozen/eval.py

TEMPERATURE = 0.07  # DINO: eval_knn.py
SIMILARITIES = 2**24  # of clips that are computed at once, 64 MB


Kind = Callable[[LabelledClips, Split, int, Probe], tuple[Tensor, dict[str, float]]]


def logistic(
    train: LabelledClips, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Fit logistic regression to convergence, with a penalty chosen on held-out videos."""
    x_ND = train.pooled.double()
    penalty = choose_penalty(x_ND, train.label_N, train.unit_N, classes, spec.seed)
    return fit(x_ND, train.label_N, classes, penalty)(test.x_ND.double()), {"penalty": penalty}


Predictor = Callable[[Tensor], Tensor]  # features (N, D) to logits (N, classes)


def fit(x_ND: Tensor, label_N: Tensor, classes: int, penalty: float) -> Predictor:
    """Fit logistic regression on standardised features, to convergence.

    Standardisation equals BatchNorm without affine, over the whole set as one batch.
    """
    return fit_path(x_ND, label_N, classes, (penalty,))[penalty]


def fit_path(
    x_ND: Tensor, label_N: Tensor, classes: int, penalties: Sequence[float]
) -> dict[float, Predictor]:
    """Fit logistic regression at several penalties, the strongest first.

    Two changes of variables reduce the steps of L-BFGS. They do not change the optimum. First, the
    features are rotated to the R eigenvectors of their covariance. A rotation keeps the squared
    weight, and the optimum has no weight in directions without variance. Second, each rotated
    weight is divided by the root of its curvature, about eigenvalue / classes + penalty. Each fit
    starts at the previous optimum.
    """
    count = len(x_ND)
    normal = _standardise(x_ND)
    normal_ND = normal(x_ND)
    value_D, basis_DD = torch.linalg.eigh(normal_ND.T @ normal_ND / count)
    used_D = value_D > 1e-12 * value_D.max().clamp(min=1e-12)
    value_R, basis_DR = value_D[used_D], basis_DD[:, used_D]
    rotated_NR = normal_ND @ basis_DR
    target_NC = F.one_hot(label_N, classes).to(x_ND.dtype)
    sizes = [classes * len(value_R), classes]
    weight_CR, bias_C = rotated_NR.new_zeros(classes, len(value_R)), rotated_NR.new_zeros(classes)
    predictor_of: dict[float, Predictor] = {}
    step = classes**0.5

    def loss(flat: np.ndarray, design_NR: Tensor, decay_R: Tensor) -> tuple[float, np.ndarray]:
        """Return the mean cross-entropy plus the penalty, and its gradient."""
        scaled_CR, scaled_C = torch.from_numpy(flat).split(sizes)
        scaled_CR = scaled_CR.view(classes, -1)
        logits_NC = F.linear(design_NR, scaled_CR, step * scaled_C)
        log_NC = logits_NC.log_softmax(1)
        total = -(log_NC * target_NC).sum()
        error_NC = (log_NC.exp() - target_NC) / count
        slope_CR = error_NC.T @ design_NR + decay_R * scaled_CR
        gradient = torch.cat([slope_CR.flatten(), step * error_NC.sum(0)])
        penalised = total.item() / count + (decay_R * scaled_CR.square()).sum().item() / 2
        return penalised, gradient.numpy()

    for penalty in sorted(penalties, reverse=True):
        step_R = (value_R / classes + penalty).rsqrt()
        arguments = rotated_NR * step_R, penalty * step_R.square()
        start = torch.cat([(weight_CR / step_R).flatten(), bias_C / step]).numpy()
        options = {"maxiter": 1000, "gtol": 1e-6, "ftol": 0}
        # With OpenBLAS's threads beside torch's, small problems would take 20 times as long.
        with threadpool_limits(1, "blas"):
            best = minimize(loss, start, arguments, jac=True, method="L-BFGS-B", options=options)
        scaled_CR, scaled_C = torch.from_numpy(best.x).split(sizes)
        weight_CR, bias_C = scaled_CR.view(classes, -1) * step_R, step * scaled_C
        predictor_of[penalty] = _predictor(normal, weight_CR @ basis_DR.T, bias_C)
    return predictor_of


def _standardise(x_ND: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that subtracts the mean of `x_ND`, and divides by its deviation."""
    variance_D, mean_D = torch.var_mean(x_ND, dim=0, correction=0)
    scale_D = (variance_D + 1e-6).rsqrt()
    return lambda x_ND: (x_ND - mean_D) * scale_D


def _predictor(normal: Callable[[Tensor], Tensor], weight_CD: Tensor, bias_C: Tensor) -> Predictor:
    return lambda x_ND: F.linear(normal(x_ND), weight_CD, bias_C)


def choose_penalty(x_ND: Tensor, label_N: Tensor, unit_N: Tensor, classes: int, seed: int) -> float:
    """Return the penalty with the best held-out accuracy, the strongest of equal ones."""
    held_N = held_out(unit_N, seed)
    wanted = label_N[held_N]

    path = fit_path(x_ND[~held_N], label_N[~held_N], classes, PENALTIES)
    right_of = {
        penalty: int((predict(x_ND[held_N]).argmax(dim=1) == wanted).sum())
        for penalty, predict in path.items()
    }
    return max(PENALTIES, key=lambda penalty: (right_of[penalty], penalty))


def held_out(unit_N: Tensor, seed: int) -> Tensor:
    """Return True for the clips of a fifth of the units (videos or groups)."""
    units = int(unit_N.max()) + 1
    held = rng.generator(rng.clip_seed(seed, 0, -2), "labels").permutation(units)[
        : round(HELD_OUT * units)
    ]
    if len(held) == 0:
        raise UserError(
            f"the training split has {units} videos or groups, and a probe needs at least 3 to "
            "hold some out; add videos, or set held_out to videos"
        )
    return torch.isin(unit_N, torch.as_tensor(held))


def v_jepa(
    train: LabelledClips, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Train V-JEPA's probe: a cross-attention block with one query, then a linear layer.

    AdamW, 20 epochs, batches of 256, gradients clipped at norm 1. The learning rate and the weight
    decay of matrices and the query fall by a cosine. The learning rate is chosen on held-out
    units. Then the probe is trained on all clips with it.

    Source: facebookresearch/jepa at a0517b4, evals/video_classification_frozen.
    """
    assert train.split.tokens_NLD is not None and test.tokens_NLD is not None
    tokens_NLD, place_N, label_N = (
        train.split.tokens_NLD,
        train.kept_N.nonzero()[:, 0],
        train.label_N,
    )
    held_N = held_out(train.unit_N, spec.seed)
    probes = _train_attentive(
        tokens_NLD, place_N[~held_N], label_N[~held_N], classes, ATTENTIVE_RATES, spec
    )
    predicted_RN = _logits(probes, tokens_NLD, place_N[held_N]).argmax(dim=2)
    accuracy_R = (predicted_RN == label_N[held_N]).float().mean(dim=1)
    # The lowest of equal rates.
    rate = ATTENTIVE_RATES[int(accuracy_R.argmax())]
    probes = _train_attentive(tokens_NLD, place_N, label_N, classes, (rate,), spec)
    return _logits(probes, test.tokens_NLD, torch.arange(len(test.x_ND)))[0], {"rate": rate}


class AttentiveProbe(nn.Module):
    """An attentive classifier, on tokens that are normalised already (`Split.tokens_NLD`).

    With a single query q, keys and values need not be computed per token. A head's scores are
    q' Wk x = (Wk' q)' x, and its output is Wv (sum of a x). Both need one D-vector per head. This
    takes 2 L D H multiply-adds per clip instead of 2 L D D. V-JEPA's block defines an output
    projection and does not apply it. Its last linear layer keeps PyTorch's initial weights.
    """

    def __init__(self, width: int, heads: int, classes: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.v = nn.Linear(width, width), nn.Linear(width, width)
        # A bias of keys adds the same number to all scores of a head, so the softmax removes it.
        self.k = nn.Linear(width, width, bias=False)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.head:
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # V-JEPA rescales the last layer of the branch.
        with torch.no_grad():
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
        x_BD = self.query + value_BHE.flatten(1) + self.v.bias
        return self.head(x_BD + self.fc2(F.gelu(self.fc1(self.norm2(x_BD)))))

    def groups(self) -> list[dict[str, Any]]:
        """Return V-JEPA's parameter groups: with weight decay, and without.

        Biases and norms have none. The query has, as V-JEPA's has three dimensions.
        """
        bare = [value for value in self.parameters() if value.ndim == 1 and value is not self.query]
        others = [value for value in self.parameters() if value.ndim > 1]
        return [{"params": [self.query, *others]}, {"params": bare, "weight_decay": 0.0}]


def _train_attentive(
    tokens_NLD: np.ndarray,
    own_N: Tensor,
    label_N: Tensor,
    classes: int,
    rates: Sequence[float],
    spec: Probe,
) -> list[AttentiveProbe]:
    """Train a probe at each learning rate, all from the same weights and on the same batches."""
    device, probes = best_device(), list[AttentiveProbe]()
    for _ in rates:
        torch.manual_seed(spec.seed)
        probe = AttentiveProbe(spec.model.width, spec.model.heads, classes)
        probes.append(probe.to(device))
    optimisers = [
        torch.optim.AdamW(probe.groups(), lr=rate, weight_decay=ATTENTIVE_DECAY)
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
        # V-JEPA moves its schedules before the step, so its last step has a rate of 0.
        factor = (1 + math.cos(math.pi * (step + 1) / steps)) / 2
        for probe, optimiser, rate in zip(probes, optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(probe(x_BLD), label_B).backward()
            span = ATTENTIVE_DECAY - ATTENTIVE_LAST_DECAY
            optimiser.param_groups[0]["weight_decay"] = ATTENTIVE_LAST_DECAY + span * factor
            nn.utils.clip_grad_norm_(probe.parameters(), ATTENTIVE_CLIP)
            optimiser.step()
    return probes


@torch.no_grad()
def _logits(probes: list[AttentiveProbe], tokens_NLD: np.ndarray, place_N: Tensor) -> Tensor:
    """Return each probe's logits of these clips, from one pass over their tokens."""
    logits = list[Tensor]()
    for place_B in place_N.split(TESTED):
        x_BLD = _tokens(tokens_NLD, place_B, probes[0].query.device)
        logits.append(torch.stack([probe(x_BLD).cpu() for probe in probes]))
    return torch.cat(logits, dim=1)


def _tokens(tokens_NLD: np.ndarray, place_B: Tensor, device: torch.device) -> Tensor:
    return torch.from_numpy(tokens_NLD[place_B.numpy()]).to(device).float()


def knn(
    train: LabelledClips, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Let the nearest training clips vote. The weight at cosine similarity s is exp(s / 0.07).

    Returns:
        Logarithms of the votes, and no settings. Their softmax is each class's share of the votes.
    """
    if (k := spec.neighbours) > (count := len(train.label_N)):
        raise UserError(f"neighbours is {k}, but there are {count} training clips; lower it")
    similarity_NK, place_NK = nearest(test.x_ND, train.pooled, k)
    weight_NK = ((similarity_NK - 1) / TEMPERATURE).exp()
    votes_NC = torch.zeros(len(test.x_ND), classes)
    votes_NC.scatter_add_(1, train.label_N[place_NK], weight_NK)
    return votes_NC.log(), {}


def nearest(query_ND: Tensor, x_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the cosine similarities and positions (N, k) of each query's nearest rows.

    Similarities are computed in blocks, so that memory does not grow with the sets.
    """
    query_ND, x_MD = F.normalize(query_ND.float()), F.normalize(x_MD.float())
    rows = min(1024, max(1, SIMILARITIES // len(x_MD)))
    blocks = [F.linear(query_BD, x_MD).topk(k, dim=1) for query_BD in query_ND.split(rows)]
    similarities, places = zip(*blocks)
    return torch.cat(similarities), torch.cat(places)


KINDS: dict[str, Kind] = {
    "logistic": logistic,
    "v-jepa": v_jepa,
    "knn": knn,
}
