"""Compiled loops that grow the trees of the online forest and send rows down them.

A tree cuts the box around a sample of earlier rows again and again, at random, the longer sides more often
(Guha, Mishra, Roy, Schrijvers, Robust Random Cut Forest Based Anomaly Detection on Streams, ICML 2016). A row
falls down the tree; each cut it meets adds ln(share of the box's length on its side / share of the sample
on it), so the sum is how much emptier its place is than the box as a whole, in nats, and every part of it
belongs to one feature (half-space mass: Tan, Ting, Liu, Fast Anomaly Detection for Streaming Data, IJCAI
2011). Of a value outside the box of the rows that came so far, two things count by their chance in a random
cut forest: that a cut leaves the row alone in the gap, and that it does not. So used is the feature that
a node cuts and the one whose side shrank most by the cut before: it tells of combinations. Lengths are
measured on asinh(2 (x - median) / spread), spread being the sample's from its 10th to its 90th percentile:
nothing depends on the unit of a feature. A value that is not known goes the way that most rows go, and adds
nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Codes, Floats, Ints, compiled
from streaming.detection.forest_sample import Inputs

TREES = 32
DEPTH = 8
LEADERS = 3
INNER = (1 << DEPTH) - 1
_LEAST_INSIDE = 8
_SHRUNK_BELOW = 0.75

_FEATURE, _HEAVIER, _INSIDE, _SHRUNK = range(4)
_CUT, _LOW, _HIGH, _LEFT_GAIN, _RIGHT_GAIN, _SCALED_LOW, _SCALED_CUT, _SCALED_HIGH = range(8)
_SIDE, _SCALED_SIDE = 8, 10
_NUMBERS = 12
_MEDIAN, _SPREAD = 0, 1


class Trees(NamedTuple):
    """Mutable arrays.

    Attributes:
        links: int32[trees, inner, 4], feature that a node cuts (-1: none), which child most rows go to, rows
            in its box, feature that shrank (-1: none); the children of node i are 2 i + 1 and 2 i + 2.
        nodes: float64[trees, inner, 12], cut and ends of the box in the feature's unit, gain of either side
            in nats, ends and cut on the scale of lengths; ends of the shrunk feature in its unit, and scaled.
        scales: float64[trees, features, 2], median and spread of each feature.
    """

    links: Codes
    nodes: Floats
    scales: Floats


class Tree(NamedTuple):
    """One of the trees."""

    links: Codes
    nodes: Floats
    scales: Floats


class Box(NamedTuple):
    """Ends and lengths of the sides of a node's box, float64[features], and lengths of its parent's."""

    lows: Floats
    lengths: Floats
    before: Floats


def no_trees(features: int) -> Trees:
    """Return trees that nothing has been grown in."""
    return Trees(
        links=np.full((TREES, INNER, 4), -1, np.int32),
        nodes=np.zeros((TREES, INNER, _NUMBERS)),
        scales=np.ones((TREES, features, 2)),
    )


@compiled
def _scaled(value: float, median: float, spread: float) -> float:
    return math.asinh(2.0 * (value - median) / spread)


@compiled
def _unscaled(length: float, median: float, spread: float) -> float:
    return median + 0.5 * spread * math.sinh(length)


@compiled
def _measure(values: Floats, scale: Floats) -> None:
    # Puts median and spread of the known values into `scale`.
    scale[_MEDIAN], scale[_SPREAD] = 0.0, 1.0
    known = np.sort(values[~np.isnan(values)])
    count = len(known)
    if count > 0:
        scale[_MEDIAN] = known[count // 2]
        spread = known[min(count - 1, count * 9 // 10)] - known[count // 10]
        if spread <= 0.0:
            spread = known[count - 1] - known[0]
        if spread > 0.0:
            scale[_SPREAD] = spread


@compiled
def _rescale(drawn: Floats, scales: Floats) -> None:
    for feature in range(len(drawn)):
        _measure(drawn[feature], scales[feature])
        median, spread = scales[feature, _MEDIAN], scales[feature, _SPREAD]
        for place in range(drawn.shape[1]):
            drawn[feature, place] = _scaled(drawn[feature, place], median, spread)


@compiled
def _side(lengths: Floats, share: float) -> int:
    # The side of the box that a point at this share of all sides, end to end, lies on; -1 without any.
    total = lengths.sum()
    chosen = -1
    left = share * total
    for feature in range(len(lengths)):
        if lengths[feature] > 0.0 and left >= 0.0:
            chosen = feature
            left -= lengths[feature]
    return chosen


@compiled
def _part(values: Floats, order: Ints, cut: float) -> tuple[int, int, int]:
    # Reorders so that rows left of the cut come first; returns how many do, and known ones on either side.
    left = 0
    right = 0
    for place in range(len(order)):
        value = values[order[place]]
        left += value <= cut
        right += value > cut
    unknown_left = left >= right
    first = 0
    for place in range(len(order)):
        value = values[order[place]]
        if value <= cut or (math.isnan(value) and unknown_left):
            order[place], order[first] = order[first], order[place]
            first += 1
    return first, left, right


@compiled
def _bounds(drawn: Floats, inside: Ints, lows: Floats, lengths: Floats) -> None:
    for feature in range(len(drawn)):
        low, high = np.inf, -np.inf
        for row in inside:
            value = drawn[feature, row]
            low, high = (value if value < low else low), (value if value > high else high)
        lows[feature], lengths[feature] = low, max(high - low, 0.0)


@compiled
def _most_shrunk(lengths: Floats, before: Floats, but: int) -> int:
    chosen, least = -1, _SHRUNK_BELOW
    for feature in range(len(lengths)):
        if feature != but and 0.0 < lengths[feature] < least * before[feature]:
            chosen, least = feature, lengths[feature] / before[feature]
    return chosen


@compiled
def _note_cut(tree: Tree, node: int, cut: float, low: float, high: float, left: float) -> None:
    # `left` is the share of the node's rows left of the cut.
    links, nodes, scales = tree
    feature = links[node, _FEATURE]
    median, spread = scales[feature, _MEDIAN], scales[feature, _SPREAD]
    nodes[node, _CUT] = _unscaled(cut, median, spread)
    nodes[node, _LOW], nodes[node, _HIGH] = _unscaled(low, median, spread), _unscaled(high, median, spread)
    nodes[node, _SCALED_LOW], nodes[node, _SCALED_CUT], nodes[node, _SCALED_HIGH] = low, cut, high
    nodes[node, _LEFT_GAIN] = math.log((cut - low) / (high - low) / left)
    nodes[node, _RIGHT_GAIN] = math.log((high - cut) / (high - low) / (1.0 - left))


@compiled
def _note_shrunk(tree: Tree, node: int, lows: Floats, lengths: Floats) -> None:
    links, nodes, scales = tree
    feature = links[node, _SHRUNK]
    if feature >= 0:
        median, spread = scales[feature, _MEDIAN], scales[feature, _SPREAD]
        for end in range(2):
            scaled = lows[feature] + end * lengths[feature]
            nodes[node, _SIDE + end] = _unscaled(scaled, median, spread)
            nodes[node, _SCALED_SIDE + end] = scaled


@compiled
def _split(tree: Tree, node: int, drawn: Floats, inside: Ints, box: Box, chances: tuple[float, float]) -> int:
    """Cut a node; return how many rows of `inside`, put first, are left of the cut, 0 for no cut."""
    lows, lengths, before = box
    feature = _side(lengths, chances[0])
    if feature < 0:
        return 0
    low, high = lows[feature], lows[feature] + lengths[feature]
    cut = low + chances[1] * (high - low)
    if not low < cut < high:
        return 0
    first, left, right = _part(drawn[feature], inside, cut)
    links = tree.links
    links[node, _FEATURE], links[node, _HEAVIER] = feature, 1 if right > left else 0
    links[node, _INSIDE] = len(inside)
    links[node, _SHRUNK] = -1
    if node > 0 and len(inside) >= _LEAST_INSIDE:
        links[node, _SHRUNK] = _most_shrunk(lengths, before, feature)
    _note_cut(tree, node, cut, low, high, first / len(inside))
    _note_shrunk(tree, node, lows, lengths)
    return first


@compiled
def grow(trees: Trees, place: int, drawn: Floats, chances: Floats) -> None:
    """Grow the tree at `place` anew.

    Args:
        drawn: float64[features, sample], what it is grown from; left on the scale of lengths.
        chances: float64[inner, 2] within (0, 1), which feature a node cuts, and where.
    """
    tree = Tree(trees.links[place], trees.nodes[place], trees.scales[place])
    _rescale(drawn, tree.scales)
    features, size = drawn.shape
    order, lows, lengths = np.arange(size), np.empty(features), np.zeros((INNER, features))
    starts, ends = np.zeros(2 * INNER + 1, np.int64), np.zeros(2 * INNER + 1, np.int64)
    ends[0] = size
    for node in range(INNER):
        tree.links[node, _FEATURE] = -1
        inside = order[starts[node] : ends[node]]
        if len(inside) > 1:
            _bounds(drawn, inside, lows, lengths[node])
            box = Box(lows, lengths[node], lengths[(node - 1) // 2])
            first = _split(tree, node, drawn, inside, box, (chances[node, 0], chances[node, 1]))
            if first > 0:
                starts[2 * node + 1], ends[2 * node + 1] = starts[node], starts[node] + first
                starts[2 * node + 2], ends[2 * node + 2] = starts[node] + first, ends[node]


@compiled
def _gap(low: float, high: float, reach: float) -> float:
    # The share of the stretched box that lies between the box and a value outside it.
    return max(1.0 - (high - low) / (max(high, reach) - min(low, reach)), 0.0)


@compiled
def _alone(gap: float, inside: int) -> float:
    # The cut falls within the gap by its share, and leaves the row a part of it, e times less on average.
    return gap * (math.log(gap * (inside + 1.0)) - 1.0) if gap > 0.0 else 0.0


@compiled
def _stretched(low: float, cut: float, high: float, reach: float) -> float:
    # What a side's gain rises by when the box is stretched to reach out so far.
    if reach < low:
        return math.log((cut - reach) / (high - reach) * (high - low) / (cut - low))
    if reach > high:
        return math.log((reach - cut) / (reach - low) * (high - low) / (high - cut))
    return 0.0


@compiled
def _descend(links: Codes, nodes: Floats, scales: Floats, row: Inputs, parts: Floats) -> float:
    # Adds up per feature and returns the sum; `together` is the chance not to have been left alone yet.
    node, total, together = 0, 0.0, 1.0
    while node < INNER and links[node, _FEATURE] >= 0:
        feature = links[node, _SHRUNK]
        if feature >= 0 and (row[feature] < nodes[node, _SIDE] or row[feature] > nodes[node, _SIDE + 1]):
            reach = _scaled(row[feature], scales[feature, _MEDIAN], scales[feature, _SPREAD])
            gap = _gap(nodes[node, _SCALED_SIDE], nodes[node, _SCALED_SIDE + 1], reach)
            gain = together * _alone(gap, links[node, _INSIDE])
            parts[feature] += gain
            total += gain
            together *= 1.0 - gap
        feature = links[node, _FEATURE]
        value = np.float64(row[feature])
        if math.isnan(value):
            node = 2 * node + 1 + links[node, _HEAVIER]
            continue
        side = 1 if value > nodes[node, _CUT] else 0
        gain, gap = nodes[node, _LEFT_GAIN + side], 0.0
        if value < nodes[node, _LOW] or value > nodes[node, _HIGH]:
            reach = _scaled(value, scales[feature, _MEDIAN], scales[feature, _SPREAD])
            low, high = nodes[node, _SCALED_LOW], nodes[node, _SCALED_HIGH]
            gap = _gap(low, high, reach)
            gain += _stretched(low, nodes[node, _SCALED_CUT], high, reach)
            gain = (1.0 - gap) * gain + _alone(gap, links[node, _INSIDE])
        parts[feature] += together * gain
        total += together * gain
        together *= 1.0 - gap
        node = 2 * node + 1 + side
    return total


@compiled
def loneliness(trees: Trees, inputs: Inputs, raw: Floats) -> None:
    """Put each row's nats, those of the mean emptiness over the trees, into `raw`, float64[n].

    The mean of e^nats, so that a few trees that see a combination are not outvoted by those that cut other
    features. Tree by tree, so that a tree stays in the processor's cache; each row adds up in the same order.
    """
    unread = np.zeros(inputs.shape[1])
    raw[:] = 0.0
    for tree in range(TREES):
        links, nodes, scales = trees.links[tree], trees.nodes[tree], trees.scales[tree]
        for row in range(len(inputs)):
            raw[row] += math.exp(_descend(links, nodes, scales, inputs[row], unread))
    for row in range(len(raw)):
        raw[row] = math.log(raw[row] / TREES)


@compiled
def leading(trees: Trees, inputs: Inputs, rows: Ints, leaders: Codes) -> None:
    """Put the features that add most to the nats of `rows` into their `leaders`, int32[n, 3]."""
    for row in rows:
        parts = np.zeros(inputs.shape[1])
        for tree in range(TREES):
            own = np.zeros(inputs.shape[1])
            nats = _descend(trees.links[tree], trees.nodes[tree], trees.scales[tree], inputs[row], own)
            parts += math.exp(nats) * own
        for place in range(leaders.shape[1]):
            best = np.argmax(parts)
            if parts[best] > 0.0:
                leaders[row, place] = best
            parts[best] = 0.0
