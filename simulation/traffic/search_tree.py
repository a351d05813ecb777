"""Which of several equally near geometries the official search tree finds first (`shapely.STRtree.nearest`), compiled.

A moving vehicle often overlaps several others, all at distance 0; which one leads then depends on the layout of the
tree. GEOS packs a sort-tile-recursive tree with ten children per node and searches it best-first, with the binary heap
of the C++ standard library; pairs of equal distance leave the heap in an order of their own.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.runtime.kernels import kernel

CAPACITY = 10  # children of a node


@kernel
def _sort(order, low, high, bounds, axis):
    """Sort order[low:high] by the centre of the bounds, stably."""
    keys = bounds[order[low:high], axis] + bounds[order[low:high], axis + 2]
    order[low:high] = order[low:high][np.argsort(keys, kind="mergesort")]


@kernel
def _pack(bounds):
    """Tree of n leaves: bounds (m, 4) of all nodes, root last, and the children (m, 2) of each, a range of order (m,).

    Nodes 0..n - 1 are the leaves, without children.
    """
    count = len(bounds)
    limit = 2 * count + 1
    nodes, children = np.empty((limit, 4)), np.zeros((limit, 2), dtype=np.int64)
    order = np.arange(limit)
    nodes[:count] = bounds
    begin, end = 0, count
    while end - begin > 1:
        parents = end
        num_slices = int(np.ceil(np.sqrt(np.ceil((end - begin) / CAPACITY))))
        per_slice = int(np.ceil((end - begin) / num_slices))
        _sort(order, begin, end, nodes, 0)
        for low in range(begin, end, per_slice):
            high = min(low + per_slice, end)
            _sort(order, low, high, nodes, 1)
            for first in range(low, high, CAPACITY):
                last = min(first + CAPACITY, high)
                inside = nodes[order[first:last]]
                for axis in range(2):
                    nodes[parents, axis] = inside[:, axis].min()
                    nodes[parents, axis + 2] = inside[:, axis + 2].max()
                children[parents, 0], children[parents, 1] = first, last
                parents += 1
        begin, end = end, parents
    return nodes[:end], children[:end], order


@kernel
def _sift_up(keys, items, hole, key, item):
    """Put an entry into a heap, from a hole upwards."""
    while hole > 0 and keys[(hole - 1) // 2] > key:
        keys[hole], items[hole] = keys[(hole - 1) // 2], items[(hole - 1) // 2]
        hole = (hole - 1) // 2
    keys[hole], items[hole] = key, item


@kernel
def _remove_top(keys, items, count):
    """Remove the top of a heap of count entries as libstdc++ does: the hole sinks to the bottom, the last rises."""
    count -= 1
    key, item = keys[count], items[count]
    hole = 0
    while 2 * hole + 1 < count:
        child = 2 * hole + 2
        if child == count or keys[child] > keys[child - 1]:
            child -= 1
        keys[hole], items[hole] = keys[child], items[child]
        hole = child
    _sift_up(keys, items, hole, key, item)


@kernel
def first_nearest(bounds: np.ndarray, distances: np.ndarray, target: np.ndarray) -> int:
    """Index of the one of n equally near geometries that the official tree finds first.

    Args:
        bounds: (n, 4) min x, min y, max x, max y of the geometries [m].
        distances: (n,) from the target [m]; for n <= CAPACITY only the smallest need to be exact.
        target: (4,) bounds of the target [m].
    """
    nodes, children, order = _pack(bounds)
    keys, items = np.empty(len(nodes)), np.empty(len(nodes), dtype=np.int64)
    keys[0], items[0], count = 0.0, len(nodes) - 1, 1
    while True:
        node = items[0]
        if node < len(bounds):
            return node
        _remove_top(keys, items, count)
        count -= 1
        for child in order[children[node, 0] : children[node, 1]]:
            if child < len(bounds):
                key = distances[child]
            else:
                gap_x = max(nodes[child, 0] - target[2], target[0] - nodes[child, 2], 0.0)
                gap_y = max(nodes[child, 1] - target[3], target[1] - nodes[child, 3], 0.0)
                key = np.sqrt(gap_x * gap_x + gap_y * gap_y)
            _sift_up(keys, items, count, key, child)
            count += 1
