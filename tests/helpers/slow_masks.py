"""Slow reference implementation of the masks: one clip, loops and scalars.

It follows equations 5 to 7 of the paper, and the rules of each other mask, word for word. Scalars
are float32, so that results can be compared exactly. Random numbers come from splitmix64 in
Python's big integers.
"""

import math
from functools import partial

import numpy as np
from scipy.signal import convolve

START, SIZES, VELOCITIES, TIES, FILL, SET, PLACES, NOISE = range(8)
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
    x = x * f(grid.width - width) + f(width / 2)
    y = y * f(grid.height - height) + f(height / 2)
    return x, y, f(width), f(height)


def velocities(grid, seed):
    n = grid.slots - 1
    random = [f(2) * u - f(1) for u in uniform(seed, VELOCITIES, 2 * n)]
    return [(random[t] * f(grid.width / 7), random[n + t] * f(grid.height / 7)) for t in range(n)]


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


def block(grid, ratio, seed, motion):
    return dense(grid, ratio, seed, [[first_box(grid, ratio, seed)]] * grid.slots)


def smm(grid, ratio, seed, motion):
    boxes = [first_box(grid, ratio, seed)]
    for vx, vy in velocities(grid, seed):  # eq. 5
        x, y, w, h = boxes[-1]
        boxes.append((bounce(x + vx, grid.width), bounce(y + vy, grid.height), w, h))
    return dense(grid, ratio, seed, [[box] for box in boxes])


def box_sides(grid, seed, w, h, jitter):
    if not jitter:
        return [w] * grid.slots, [h] * grid.slots
    # sx_t and sy_t as shares of the first box's sides. `sides` subtracts their mean.
    n = grid.slots - 1
    random = [(f(2) * u - f(1)) * f(0.1) for u in uniform(seed, SIZES, 2 * n)]
    return sides(w, random[:n]), sides(h, random[n:])


def mgm(grid, ratio, seed, motion, jitter):
    x, y, w, h = first_box(grid, ratio, seed)
    ws, hs = box_sides(grid, seed, w, h, jitter)
    rows, columns = motion.shape[1:]
    order = bits(seed, TIES, rows * columns)
    boxes = []
    guided = False
    for t in range(grid.slots):
        largest = max(motion[t].flatten())
        if largest > 0 and t > 0:
            tied = []
            for row in range(rows):
                for column in range(columns):
                    if motion[t, row, column] == largest:
                        cx = f(column + 0.5) * f(grid.width / columns)
                        cy = f(row + 0.5) * f(grid.height / rows)
                        away = (cx - x) * (cx - x) + (cy - y) * (cy - y) if guided else f(0)
                        tied.append((away, order[row * columns + column], cx, cy))
            _, _, x, y = min(tied)
            guided = True
        boxes.append([(x, y, ws[t], hs[t])])
    return dense(grid, ratio, seed, boxes)


def dense(grid, ratio, seed, boxes):
    """Hide the patches of each slot that are nearest to one of its boxes."""
    hidden = int(ratio * (grid.height * grid.width))
    n = grid.height * grid.width
    # All slots have the same random order.
    ties = bits(seed, TIES, n)
    mask = np.zeros((grid.slots, n), bool)
    for t, own in enumerate(boxes):
        near = []
        for patch in range(n):
            row, column = divmod(patch, grid.width)
            away = min(
                max(abs(f(column + 0.5) - cx) / w, abs(f(row + 0.5) - cy) / h)
                for cx, cy, w, h in own
            )
            near.append((away, ties[patch], patch))
        mask[t, [patch for _, _, patch in sorted(near)[:hidden]]] = True
    return mask


def random_set(grid, ratio, seed):
    n = grid.height * grid.width
    words = bits(seed, SET, n)
    return sorted(range(n), key=lambda patch: words[patch])[: int(ratio * n)]


def tube(grid, ratio, seed, motion):
    mask = np.zeros((grid.slots, grid.height * grid.width), bool)
    mask[:, random_set(grid, ratio, seed)] = True
    return mask


def of_clip(grid, ratio, key):
    """Hide the tokens of a clip with the smallest keys."""
    n = grid.height * grid.width
    mask = np.zeros(grid.slots * n, bool)
    mask[sorted(range(grid.slots * n), key=key)[: grid.slots * int(ratio * n)]] = True
    return mask.reshape(grid.slots, n)


def agnostic(grid, ratio, seed, motion):
    words = bits(seed, SET, grid.slots * grid.height * grid.width)
    return of_clip(grid, ratio, lambda token: words[token])


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
                left = column * columns // grid.width
                right = -(-(column + 1) * columns // grid.width)
                patch = row * grid.width + column
                moves.append((motion[t, top:bottom, left:right].max(), ties[t * n + patch], patch))
        mask[t, [patch for _, _, patch in sorted(moves, reverse=True)[: int(ratio * n)]]] = True
    return mask


def warped(grid, ratio, seed, motion, displacement):
    """Hide the lowest patches of MGMAE's warped map, which has 2 x 2 cells per patch.

    The middle slot has hills on random patches. Slot by slot, motion pulls its map outwards.
    """
    rows, columns = 2 * grid.height, 2 * grid.width
    n = grid.height * grid.width
    hidden = n - max(1, int(n * (1 - ratio)))
    shown = [
        divmod(patch, grid.width)
        for patch in range(n)
        if patch not in random_set(grid, ratio, seed)
    ]

    def fall(place, patch):
        return f(math.exp(-(((place + 0.5) / 2 - (patch + 0.5)) ** 2)))

    base = [
        [max(fall(row, r) * fall(column, c) for r, c in shown) for column in range(columns)]
        for row in range(rows)
    ]

    def cell(slot, row, column):
        y = (2 * row + 1) * displacement.shape[1] // (2 * rows)
        x = (2 * column + 1) * displacement.shape[2] // (2 * columns)
        dx, dy = displacement[slot, y, x]
        return dx * f(columns), dy * f(rows)

    def pull(source, slot, sign):
        out = [[None] * columns for _ in range(rows)]
        for row in range(rows):
            for column in range(columns):
                dx, dy = cell(slot, row, column)
                x, y = f(sign) * dx + f(column), f(sign) * dy + f(row)
                if not (-0.5 < x < columns - 0.5 and -0.5 < y < rows - 0.5):
                    out[row][column] = base[row][column]
                    continue
                x, y = min(max(x, f(0)), f(columns - 1)), min(max(y, f(0)), f(rows - 1))
                left, top = int(x), int(y)
                right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
                sx, sy = x - f(left), y - f(top)
                upper = source[top][left] * (f(1) - sx) + source[top][right] * sx
                lower = source[bottom][left] * (f(1) - sx) + source[bottom][right] * sx
                out[row][column] = upper * (f(1) - sy) + lower * sy
        return out

    middle = grid.slots // 2
    maps = {middle: base}
    for slot in range(middle + 1, grid.slots):
        maps[slot] = pull(maps[slot - 1], slot, -1)
    for slot in range(middle - 1, -1, -1):
        maps[slot] = pull(maps[slot + 1], slot, 1)
    ties = bits(seed, TIES, n)
    mask = np.zeros((grid.slots, n), bool)
    for slot, m in maps.items():
        heights = []
        for patch in range(n):
            r, c = (2 * side for side in divmod(patch, grid.width))
            heights.append(
                (f(0) + m[r][c] + m[r][c + 1] + m[r + 1][c] + m[r + 1][c + 1], ties[patch], patch)
            )
        mask[slot, [patch for _, _, patch in sorted(heights)[:hidden]]] = True
    return mask


def motion_bins(grid, ratio, seed, motion):
    n = grid.height * grid.width
    ties, draw = bits(seed, TIES, n), bits(seed, SET, n)
    total = [f(0)] * n
    for t in range(grid.slots):
        total = [a + b for a, b in zip(total, quarters(grid, motion[t]))]
    order = [patch for _, _, patch in sorted(zip(total, ties, range(n)))]
    shown = n - int(ratio * n)
    low, high = (
        sorted(half, key=lambda patch: draw[patch]) for half in (order[: n // 2], order[n // 2 :])
    )
    mask = np.ones((grid.slots, n), bool)
    mask[:, high[: shown // 2] + low[: shown - shown // 2]] = False
    return mask


def multi_block(grid, ratio, seed, motion, sign=0):
    """Hide V-JEPA's blocks: anywhere (sign 0), or by the softmax of the motion inside."""
    n = grid.height * grid.width
    blocks, scale = ((8, 0.15), (2, 0.7))[bits(seed, START, 1)[0] % 2]
    aspect = f(0.75) + f(0.75) * uniform(seed, SIZES, 1)[0]
    area = f(int(scale * n))
    h = f(min(max(round(float(np.sqrt(area * aspect))), 1), grid.height))
    w = f(min(max(round(float(np.sqrt(area / aspect))), 1), grid.width))
    if sign:
        corners = corners_by_motion(grid, seed, motion, sign, blocks, int(h), int(w))
    else:
        places = uniform(seed, PLACES, 2 * blocks)
        corners = [
            (int(y * (f(grid.height) - h + f(1))), int(x * (f(grid.width) - w + f(1))))
            for y, x in zip(places[::2], places[1::2])
        ]
    boxes = [(f(left) + w / f(2), f(top) + h / f(2), w, h) for top, left in corners]
    return dense(grid, ratio, seed, [boxes] * grid.slots)


motion_blocks, static_blocks = (partial(multi_block, sign=sign) for sign in (1, -1))


def corners_by_motion(grid, seed, motion, sign, blocks, h, w):
    n = grid.height * grid.width
    total = [f(0)] * n
    for t in range(grid.slots):
        total = [a + b for a, b in zip(total, quarters(grid, motion[t]))]
    largest = max(max(total), np.finfo(f).tiny)
    units = [int(np.rint(f(65536) * (x / largest))) for x in total]
    inside = {}
    for top in range(grid.height - h + 1):
        for left in range(grid.width - w + 1):
            patches = [(y, x) for y in range(top, top + h) for x in range(left, left + w)]
            inside[top, left] = sum(units[y * grid.width + x] for y, x in patches)
    most = max(1, *inside.values())
    random, corners = bits(seed, PLACES, blocks * n), []
    for k in range(blocks):
        scores = {}
        for (top, left), moves in inside.items():
            draw = (random[k * n + top * grid.width + left] + 0.5) / 2**32
            scores[top, left] = sign * moves / most / 0.2 - math.log(-math.log(draw))
        corners.append(max(scores, key=scores.get))
    return corners


def quarters(grid, motion_HW):
    """Return each patch's motion: the sum at the centres of its quarters."""
    rows, columns = motion_HW.shape
    moves = []
    for patch in range(grid.height * grid.width):
        row, column = (2 * side for side in divmod(patch, grid.width))
        total = f(0)
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            at = (2 * (row + y) + 1) * rows // (4 * grid.height)
            total = total + motion_HW[at, (2 * (column + x) + 1) * columns // (4 * grid.width)]
        moves.append(total)
    return moves


def future(grid, ratio, seed, motion):
    n = grid.height * grid.width
    order = bits(seed, SET, grid.slots * n)
    return of_clip(grid, ratio, lambda token: (-(token // n), order[token]))


def codec_clip(grid, ratio, seed, motion):
    n = grid.height * grid.width
    order = bits(seed, TIES, grid.slots * n)
    moves = [math.inf] * n + [x for slot in motion[1:] for x in quarters(grid, slot)]
    return of_clip(grid, ratio, lambda token: (moves[token], order[token]))


def codec_residual(residual, speed, tubelet):
    """Return the score of each slot's cells: the mean size of the residual in 8 x 8 pixels."""
    frames = [
        [
            [float(np.abs(left[y : y + 8, x : x + 8]).mean()) for x in range(0, len(left[0]), 8)]
            for y in range(0, len(left), 8)
        ]
        for left in residual
    ]
    return [
        sum(np.array(x, f) for x in frames[t : t + tubelet]) for t in range(0, len(frames), tubelet)
    ]


def codec_fused(residual, speed, tubelet):
    """Return the mean of residual and speed, each over its frame's 95th percentile, at most 1."""
    frames = []
    for parts in zip(codec_residual(residual, speed, 1), speed):
        shares = []
        for part in parts:
            top = max(np.percentile(part, 95), np.finfo(f).tiny)
            shares.append(np.array([[min(x / top, 1) for x in row] for row in part]))
        frames.append(sum(shares) / 2)
    return [sum(frames[t : t + tubelet]).astype(f) for t in range(0, len(frames), tubelet)]


def green_noise(grid, ratio, seed, motion):
    """Convolve once with scipy and the whole 3-D kernel, instead of in three passes."""
    reach = 6
    sides = [side + 2 * reach for side in (grid.slots, grid.height, grid.width)]
    white = np.array([word >> 8 for word in bits(seed, NOISE, math.prod(sides))], float).reshape(
        sides
    )

    def kernel(width):
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        line = np.round(256 * line / line.sum())
        line[reach] += 256 - line.sum()
        return line[:, None, None] * line[:, None] * line

    green = convolve(white, kernel(1.0) - kernel(2.0), mode="valid", method="direct").reshape(
        grid.slots, -1
    )
    return green.argsort(1).argsort(1) < int(ratio * grid.height * grid.width)


def codec_keep(grid, ratio, seed, motion):
    n = grid.height * grid.width
    ties, mask = bits(seed, TIES, n), np.ones((grid.slots, n), bool)
    for slot in range(grid.slots):
        moves = sorted(zip(quarters(grid, motion[slot]), ties, range(n)))
        mask[slot, [patch for _, _, patch in moves[int(ratio * n) :]]] = False
    return mask


def function_of(name):
    return globals().get(name.replace("-", "_"))


def mask(name, grid, ratio, seed, motion, jitter, displacement):
    more = {"mgm": [jitter], "warped": [displacement]}.get(name, [])
    return function_of(name)(grid, ratio, seed, motion, *more)
