"""How alpha and rank change the learning rate that counts.

The change of a weight is ``scale * up @ down``. Optimizers that divide by the gradient's size (Adam and its kin, Lion)
move ``up`` by about the learning rate whatever the scale, so the change moves by ``scale`` times that: half the scale
is half the learning rate. SGD moves ``up`` by the gradient, which has the scale in it once more: there it is
``scale ** 2``. Derived from the formula of Hu et al. 2021; ``1 / sqrt(rank)`` is from Kalajdzievski 2023.
"""

from __future__ import annotations

from math import sqrt

from .network import NetworkSection
from .optimizer import OptimizerSection


def scale(network: NetworkSection) -> float:
    """alpha / rank, or alpha / sqrt(rank) with rsLoRA; 1 where alpha plays no part."""
    if network.type == "oft":
        return 1.0
    alpha = network.rank if network.alpha is None else network.alpha
    return alpha / (sqrt(network.rank) if network.rslora else network.rank)


def effective_rate(network: NetworkSection, optimizer: OptimizerSection) -> float:
    """The learning rate that moves an adapter of scale 1 as fast."""
    factor = scale(network)
    return optimizer.learning_rate * (factor**2 if optimizer.name == "sgd" else factor)


def scale_note(network: NetworkSection, optimizer: OptimizerSection) -> str:
    """A line for people; empty where alpha plays no part.

    ``alpha 8 / rank 16: the change is scaled by 0.5, so learning rate 0.0001 acts as 5e-05 would at scale 1``
    """
    if network.type == "oft" or not network.train:
        return ""
    alpha = network.rank if network.alpha is None else network.alpha
    rank = f"sqrt(rank {network.rank})" if network.rslora else f"rank {network.rank}"
    said = f"alpha {alpha:g} / {rank}: the change is scaled by {scale(network):.4g}"
    if optimizer.name == "prodigy":
        return f"{said}; prodigy finds its own learning rate, larger for a smaller scale"
    if scale(network) == 1:
        half = optimizer.learning_rate * (0.25 if optimizer.name == "sgd" else 0.5)
        return f"{said}; with half the alpha, learning rate {optimizer.learning_rate:g} would act as {half:.4g}"
    rate = effective_rate(network, optimizer)
    return f"{said}, so learning rate {optimizer.learning_rate:g} acts as {rate:.4g} would at scale 1"
