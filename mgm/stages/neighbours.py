"""Exact nearest neighbours by cosine similarity, with bounded memory."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.models.kernels import linear

KNN_ROWS, KNN_COLUMNS = 1024, 16384  # size of a block of similarities, 64 MB
KNN_GROUP = 32  # similarities of a row that are compared at once


def nearest(query_ND: Tensor, x_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the cosine similarities and positions (N, k) of each query's nearest rows.

    Similarities are computed in blocks, so that memory does not grow with the sets.
    """
    query_ND, x_MD = F.normalize(query_ND.float()), F.normalize(x_MD.float())
    similarities, places = list[Tensor](), list[Tensor]()
    for rows_BD in query_ND.split(KNN_ROWS):
        best, place = list[Tensor](), list[Tensor]()
        for start in range(0, len(x_MD), KNN_COLUMNS):
            own, at = _largest(linear(rows_BD, x_MD[start : start + KNN_COLUMNS]), k)
            best.append(own)
            place.append(at + start)
        similarity_BK, at_BK = torch.cat(best, dim=1).topk(k, dim=1)
        similarities.append(similarity_BK)
        places.append(torch.cat(place, dim=1).gather(1, at_BK))
    return torch.cat(similarities), torch.cat(places)


def _largest(x_BM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row and their positions. A shorter row returns all.

    The largest values are in the k groups with the largest maxima. Finding these groups reads the
    row once. topk on the whole row would take half as long as the matrix product before it.
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
