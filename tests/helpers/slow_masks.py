"""The masks again, slowly: one clip, loops, scalars, word for word after equations 5-7 and DESIGN's pattern rules.

Scalars are float32, so that results can be compared exactly. Random numbers come from splitmix64 in Python's big integers.
"""

import math

import numpy as np

START, SIZES, VELOCITIES, TIES, FILL, SET = range(6)
WORD = 1 << 64
f = np.float32


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


def bits(seed, stream, n):
    start = mix((seed + (stream + 1) * 0x9E3779B97F4A7C15) % WORD)
    return [mix((start + i * 0x9E3779B97F4A7C15) % WORD) >> 32 for i in range(1, n + 1)]


def uniform(seed, stream, n):
    return [f((word >> 8) / 2**24) for word in bits(seed, stream, n)]


def first_box(grid, ratio, seed):
    area = ratio * grid.height * grid.width
    height = min(max(math.sqrt(area), area / grid.width), grid.height)
    width = area / height
    x, y = uniform(seed, START, 2)
    return x * f(grid.width - width) + f(width / 2), y * f(grid.height - height) + f(height / 2), f(width), f(height)


def velocities(grid, seed):
    n = grid.slots - 1
    random = [f(2) * u - f(1) for u in uniform(seed, VELOCITIES, 2 * n)]
    return [(random[t] * f(grid.width / 7), random[n + t] * f(grid.height / 7)) for t in range(n)]


def jitters(grid, seed):
    """sx_t and sy_t, in sides of the first box, before their mean is taken off."""
    n = grid.slots - 1
    random = [(f(2) * u - f(1)) * f(0.1) for u in uniform(seed, SIZES, 2 * n)]
    return random[:n], random[n:]


def bounce(position, side):
    if position < 0:
        position = -position
    return f(side) - (position - f(side)) if position > side else f(side) - (f(side) - position)


def sides(first, jitter):
    steps = [s * first for s in jitter]
    mean = f(0)
    for step in steps:
        mean = mean + step
    mean = mean * f(1 / max(1, len(steps)))
    walk = [first]
    for step in steps:
        walk.append(walk[-1] + (step - mean))
    return [min(max(side, f(max(1, first / 2))), f(first * 2)) for side in walk]


def block_boxes(grid, ratio, seed, motion, jitter):
    return [first_box(grid, ratio, seed)] * grid.slots


def smm_boxes(grid, ratio, seed, motion, jitter):
    boxes = [first_box(grid, ratio, seed)]
    for vx, vy in velocities(grid, seed):  # eq. 5
        x, y, w, h = boxes[-1]
        boxes.append((bounce(x + vx, grid.width), bounce(y + vy, grid.height), w, h))
    return boxes


def mgm_boxes(grid, ratio, seed, motion, jitter):
    x, y, w, h = first_box(grid, ratio, seed)
    sx, sy = jitters(grid, seed)
    ws, hs = (sides(w, sx), sides(h, sy)) if jitter else ([w] * grid.slots, [h] * grid.slots)
    rows, columns = motion.shape[1:]
    order = bits(seed, TIES, rows * columns)
    boxes = [(x, y, ws[0], hs[0])]
    guided = False
    for t in range(1, grid.slots):
        largest = max(motion[t].flatten())
        if largest > 0:
            tied = []
            for row in range(rows):
                for column in range(columns):
                    if motion[t, row, column] == largest:
                        cx, cy = f(column + 0.5) * f(grid.width / columns), f(row + 0.5) * f(grid.height / rows)
                        away = (cx - x) * (cx - x) + (cy - y) * (cy - y) if guided else f(0)
                        tied.append((away, order[row * columns + column], cx, cy))
            _, _, x, y = min(tied)
            guided = True
        boxes.append((x, y, ws[t], hs[t]))
    return boxes


def overlap(centre, size, frame):
    low, high = max(centre - size / f(2), f(0)), min(centre + size / f(2), f(frame))
    return (high - low) / size


def inside(centre, size, frame):
    margin = min(size / f(2), f(frame / 2))
    return min(max(centre, margin), f(frame) - margin)


def dense(grid, ratio, seed, boxes, edge):
    hidden = int(ratio * (grid.height * grid.width))
    n = grid.height * grid.width
    ties, fill = bits(seed, TIES, n), bits(seed, FILL, n)  # one order for all slots
    mask = np.zeros((grid.slots, n), bool)
    for t, (cx, cy, w, h) in enumerate(boxes):
        if edge == "clamp":
            cx, cy = inside(cx, w, grid.width), inside(cy, h, grid.height)
        near = []
        for patch in range(n):
            row, column = divmod(patch, grid.width)
            away = max(abs(f(column + 0.5) - cx) / w, abs(f(row + 0.5) - cy) / h)
            near.append((away, ties[patch], patch))
        near = [patch for _, _, patch in sorted(near)]
        kept = hidden
        if edge == "spill":
            kept = round(f(hidden) * (overlap(cx, w, grid.width) * overlap(cy, h, grid.height)))
        rest = sorted(near[kept:], key=lambda patch: fill[patch])
        mask[t, near[:kept] + rest[: hidden - kept]] = True
    return mask


def random_set(grid, ratio, seed):
    n = grid.height * grid.width
    words = bits(seed, SET, n)
    return sorted(range(n), key=lambda patch: words[patch])[: int(ratio * n)]


def tube(grid, ratio, seed, motion):
    mask = np.zeros((grid.slots, grid.height * grid.width), bool)
    mask[:, random_set(grid, ratio, seed)] = True
    return mask


def agnostic(grid, ratio, seed, motion):
    n = grid.height * grid.width
    words = bits(seed, SET, grid.slots * n)
    mask = np.zeros(grid.slots * n, bool)
    mask[sorted(range(grid.slots * n), key=lambda token: words[token])[: grid.slots * int(ratio * n)]] = True
    return mask.reshape(grid.slots, n)


def smm_sparse(grid, ratio, seed, motion):
    mask = np.zeros((grid.slots, grid.height, grid.width), bool)
    x = y = f(0)
    for t in range(grid.slots):
        if t:
            vx, vy = velocities(grid, seed)[t - 1]
            x, y = x + vx, y + vy
        for patch in random_set(grid, ratio, seed):
            row, column = divmod(patch, grid.width)
            mask[t, (row + round(y)) % grid.height, (column + round(x)) % grid.width] = True
    return mask.reshape(grid.slots, -1)


def mgm_sparse(grid, ratio, seed, motion):
    n = grid.height * grid.width
    rows, columns = motion.shape[1:]
    ties = bits(seed, TIES, grid.slots * n)
    mask = np.zeros((grid.slots, n), bool)
    for t in range(grid.slots):
        if t and not motion[t].any():
            mask[t] = mask[t - 1]
            continue
        moves = []
        for row in range(grid.height):
            for column in range(grid.width):
                top, bottom = row * rows // grid.height, -(-(row + 1) * rows // grid.height)
                left, right = column * columns // grid.width, -(-(column + 1) * columns // grid.width)
                patch = row * grid.width + column
                moves.append((motion[t, top:bottom, left:right].max(), ties[t * n + patch], patch))
        mask[t, [patch for _, _, patch in sorted(moves, reverse=True)[: int(ratio * n)]]] = True
    return mask


BOXES = {"block": block_boxes, "smm": smm_boxes, "mgm": mgm_boxes}
SPARSE = {"tube": tube, "agnostic": agnostic, "smm-sparse": smm_sparse, "mgm-sparse": mgm_sparse}


def mask(name, grid, ratio, seed, motion, edge, jitter):
    if name in SPARSE:
        return SPARSE[name](grid, ratio, seed, motion)
    return dense(grid, ratio, seed, BOXES[name](grid, ratio, seed, motion, jitter), edge)
