"""A pose graph of measured rigid motions: wrong edges out, first poses from a spanning tree, then all edges at once.

Edges are checked by the cycles they close (Zach et al., CVPR 2010: a triangle of motions must return to where it
started); what survives is solved by Levenberg-Marquardt with Cauchy weights.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from recon.mapping.factors import RigidFactors, cauchy, moved
from recon.mapping.schur import accumulate

Float64Array = NDArray[np.float64]

_LOSS_SCALE = 3.0  # of the whitened residual of an edge


def inverse(poses: Float64Array) -> Float64Array:
    """Inverses of rigid motions [..., 3, 4]."""
    rotation = np.swapaxes(poses[..., :3], -1, -2)
    return np.concatenate([rotation, -rotation @ poses[..., 3:]], axis=-1)


def compose(a_from_b: Float64Array, b_from_c: Float64Array) -> Float64Array:
    """Products of rigid motions [..., 3, 4]."""
    rotation = a_from_b[..., :3] @ b_from_c[..., :3]
    return np.concatenate([rotation, a_from_b[..., :3] @ b_from_c[..., 3:] + a_from_b[..., 3:]], axis=-1)


def select(edges: RigidFactors, keep: NDArray[np.bool_]) -> RigidFactors:
    """The chosen edges."""
    return RigidFactors(*(getattr(edges, f.name)[keep] for f in dataclasses.fields(edges)))


def consistent_edges(edges: RigidFactors, num_views: int) -> NDArray[np.bool_]:
    """Edges [F] that close more triangles than they break, and those that are in no triangle."""
    closed, broken = triangles(edges, num_views)
    return (closed > broken) | (closed + broken == 0)


def triangles(
    edges: RigidFactors, num_views: int, max_rotation_deg: float = 5.0, max_relative_translation: float = 0.15
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many triangles each edge [F] closes, and how many it breaks.

    A triangle closes when its product turns by at most ``max_rotation_deg`` and shifts by at most
    ``max_relative_translation`` of its longest side plus 5 cm, or by three of its edges' joint sigmas if that is more.
    """
    motion: dict[tuple[int, int], Float64Array] = {}
    row: dict[tuple[int, int], int] = {}
    for k, (i, j) in enumerate(zip(edges.view1, edges.view2, strict=True)):
        motion[int(i), int(j)] = edges.cam1_from_cam2[k]
        motion[int(j), int(i)] = inverse(edges.cam1_from_cam2[k])
        row[int(i), int(j)] = row[int(j), int(i)] = k
    closed = np.zeros(len(edges.view1), dtype=np.int64)
    broken = np.zeros(len(edges.view1), dtype=np.int64)
    neighbours: list[set[int]] = [set() for _ in range(num_views)]
    for i, j in motion:
        neighbours[i].add(j)
    for a in range(num_views):
        for b, c in combinations(sorted(n for n in neighbours[a] if n > a), 2):
            if (b, c) not in motion:
                continue
            loop = compose(compose(motion[a, b], motion[b, c]), motion[c, a])
            cosine = np.clip((np.trace(loop[:, :3]) - 1) / 2, -1, 1)
            longest = max(np.linalg.norm(motion[e][:, 3]) for e in ((a, b), (b, c), (c, a)))
            members = [row[a, b], row[b, c], row[c, a]]
            turn_deg = 3 * np.degrees(np.linalg.norm(edges.rotation_sigma[members]))
            # a turned edge also shifts the end of the next
            shift = 3 * np.hypot(
                np.linalg.norm(edges.translation_sigma[members]),
                longest * np.linalg.norm(edges.rotation_sigma[members]),
            )
            closes = np.degrees(np.arccos(cosine)) <= max(max_rotation_deg, turn_deg) and np.linalg.norm(
                loop[:, 3]
            ) <= max(max_relative_translation * longest + 0.05, shift)
            (closed if closes else broken)[members] += 1
    return closed, broken


def components(edges: RigidFactors, num_views: int) -> NDArray[np.int64]:
    """A label for each view [N], equal where edges connect."""
    graph = coo_matrix((np.ones(len(edges.view1)), (edges.view1, edges.view2)), shape=(num_views, num_views))
    _, label = connected_components(graph, directed=False)
    return label.astype(np.int64)


def largest_component(edges: RigidFactors, num_views: int) -> NDArray[np.int64]:
    """Views of the largest connected set, ascending."""
    label = components(edges, num_views)
    return np.flatnonzero(label == np.argmax(np.bincount(label)))


def spanning_poses(edges: RigidFactors, strength: Float64Array, num_views: int, root: int) -> Float64Array:
    """Initial ``cam_from_world`` [N, 3, 4] along the spanning tree of the strongest edges; the root is the world.

    Views out of the root's reach keep NaN.
    """
    cost = 1.0 / np.maximum(strength, 1e-9)
    tree = minimum_spanning_tree(coo_matrix((cost, (edges.view1, edges.view2)), shape=(num_views, num_views)))
    order, parent = breadth_first_order(tree, root, directed=False)
    motion = {}
    for k, (i, j) in enumerate(zip(edges.view1, edges.view2, strict=True)):
        motion[int(i), int(j)] = edges.cam1_from_cam2[k]
        motion[int(j), int(i)] = inverse(edges.cam1_from_cam2[k])
    poses = np.full((num_views, 3, 4), np.nan)
    poses[root] = np.eye(4)[:3]
    for view in order[1:]:
        poses[view] = compose(motion[int(view), int(parent[view])], poses[parent[view]])
    return poses


def optimise(poses: Float64Array, edges: RigidFactors, max_iterations: int = 50) -> tuple[Float64Array, Float64Array]:
    """Poses [N, 3, 4] that fit all edges, view 0 held still, and the whitened residual norms [F] of the edges."""

    def cost_of(candidate: Float64Array) -> float:
        return float(cauchy((edges.values(candidate) ** 2).sum(axis=1), _LOSS_SCALE)[0].sum())

    n, damping, cost = len(poses), 1e-3, cost_of(poses)
    columns = np.concatenate([6 * edges.view1[:, None] + np.arange(6), 6 * edges.view2[:, None] + np.arange(6)], axis=1)
    for _ in range(max_iterations):
        r, j1, j2 = edges.residuals(poses)
        _, weight = cauchy((r**2).sum(axis=1), _LOSS_SCALE)
        h, b = np.zeros((6 * n, 6 * n)), np.zeros(6 * n)
        accumulate(h, b, columns, np.concatenate([j1, j2], axis=2), r, weight)
        h, b = h[6:, 6:], b[6:]  # gauge: view 0 stays
        improved = False
        for _ in range(10):
            damped = h + np.diag(damping * np.diag(h) + 1e-12)
            step = np.concatenate([np.zeros(6), cho_solve(cho_factor(damped), b)]).reshape(n, 6)
            candidate = moved(poses, step)
            new_cost = cost_of(candidate)
            if new_cost < cost:
                improved = True
                break
            damping *= 4
        if not improved:
            break
        decrease, poses, cost, damping = (cost - new_cost) / cost, candidate, new_cost, max(damping / 5, 1e-9)
        if decrease < 1e-6:
            break
    return poses, np.sqrt((edges.values(poses) ** 2).sum(axis=1))
