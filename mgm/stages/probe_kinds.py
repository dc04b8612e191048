"""The probe kinds: two ways to classify frozen features.

`logistic`: logistic regression on standardised features, fitted to convergence. The penalty is
    chosen on held-out training videos. Ours, and the default.
`knn`: DINO's weighted k-nearest neighbours (Caron et al., 2021), without training.

A kind takes the training features, the test features and the number of classes. It returns the
logits of the test clips, (N, classes), and the setting that it chose. No setting is chosen on the
test split.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from mgm import rng
from mgm.errors import UserError
from mgm.spec import Probe
from mgm.stages.features import LabelledClips, Split

# Factors of half the sum of squared weights, which is added to the mean cross-entropy.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.2

TEMPERATURE = 0.07  # DINO: eval_knn.py
SIMILARITIES = 2**24  # of clips that are computed at once, 64 MB


Kind = Callable[[LabelledClips, Split, int, Probe], tuple[Tensor, dict[str, float]]]


def logistic(
    train: LabelledClips, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Fit logistic regression to convergence, with a penalty chosen on held-out videos.

    Returns:
        Logits of the test clips (N, classes), and the penalty.
    """
    x_ND = train.x_ND.double()
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
    """Return (N,) bool, True for the clips of a fifth of the units (videos or groups).

    Raises:
        UserError: there are fewer than 3 units.
    """
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


def knn(
    train: LabelledClips, test: Split, classes: int, spec: Probe
) -> tuple[Tensor, dict[str, float]]:
    """Let the nearest training clips vote. The weight at cosine similarity s is exp(s / 0.07).

    Returns:
        Logarithms of the votes (N, classes), and no settings. Their softmax is each class's share
        of the votes.

    Source: facebookresearch/dino, eval_knn.py.
    """
    if (k := spec.neighbours) > (count := len(train.label_N)):
        raise UserError(f"neighbours is {k}, but there are {count} training clips; lower it")
    similarity_NK, place_NK = nearest(test.x_ND, train.x_ND, k)
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


KINDS: dict[str, Kind] = {"logistic": logistic, "knn": knn}
