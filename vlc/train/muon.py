"""Muon for the matrices of a model: the momentum of each, made orthogonal (Jordan et al. 2024; optax's).

Updates are scaled to the size that AdamW's usually have (Liu et al. 2025, "Muon is Scalable for LLM Training",
arXiv 2502.16982, section 2.2), so that learning rate and weight decay are those of AdamW, which goes on with all that
is no matrix: biases, norms, tables, temperatures.
"""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon
from optax.contrib._muon import scale_by_shape  # what optax.contrib.muon is made of; it gives no name to it

from vlc.train.names import names_of

_RMS = 0.2  # of AdamW's updates


def scale_by_muon_or(others: optax.GradientTransformation, moment_dtype: Any) -> optax.GradientTransformation:
    """Muon for kernels of linear maps and convolutions, `others` for all else."""
    muon = optax.chain(
        scale_by_muon(mu_dtype=moment_dtype, weight_dimension_numbers=matrices_of),
        scale_by_shape(weight_dimension_numbers=matrices_of, consistent_rms=_RMS),
    )

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "muon" if "kernel" in names_of(path) else "others", params
        )

    return optax.partition({"muon": muon, "others": others}, labels)


def matrices_of(params: Any) -> Any:
    """Which axes of each kernel are inputs and which are outputs."""
    return jax.tree_util.tree_map_with_path(_matrix, params)


def _matrix(path: Any, kernel: Any) -> MuonDimensionNumbers:
    names = names_of(path)
    first = int("blocks" in names)  # layers are matrices side by side, and so are keys and values
    if "query" in names:  # [embed, heads, kv]
        return MuonDimensionNumbers((first,), (first + 1, first + 2))
    if "key_value" in names:  # [embed, pair, heads, kv]
        return MuonDimensionNumbers((first,), (first + 2, first + 3))
    last = kernel.ndim - 1  # of attention's output [heads, kv, embed], of convolutions [.., .., in, out]
    return MuonDimensionNumbers(tuple(range(first, last)), (last,))
