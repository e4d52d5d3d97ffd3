"""Every MCMC kernel, one line each: a name and how to make it from a model. The contract suite runs over them all."""

from typing import NamedTuple

from jax import tree
from numpyro.handlers import condition

from numpyro_inverse.infer import (
    MALA,
    PCN,
    SKROCK,
    ULA,
    ExactGaussian,
    InfMALA,
    InformedMALA,
    InformedPCN,
    LowRankNUTS,
    MoreauYosidaULA,
    TemperedSGLD,
)


class Case(NamedTuple):
    """``make(model)``; ``fields`` it collects; the ``bias`` it admits in posterior standard deviations."""

    make: object
    fields: tuple[str, ...] = ("accept_prob", "step_size", "potential_energy", "num_grads")
    bias: float = 0.0
    gaussian_only: bool = False  # then the model has its scale fixed to 1


def nothing(z, smoothing):
    """The proximal operator of 0."""
    return tree.map(lambda v: v, z)


ONE_OF_EACH_BASE = ("MALA", "SKROCK", "PCN")  # what shares its base with one of these is run in full by the long suite

ONE_OF_EACH_BASE = ("MALA", "SKROCK", "PCN")  # the others are run in full by the long suite

KERNELS = {
    "MALA": Case(MALA),
    "PCN": Case(PCN),
    "InfMALA": Case(InfMALA),
    "InformedPCN": Case(InformedPCN),
    "InformedMALA": Case(InformedMALA),
    "LowRankNUTS": Case(LowRankNUTS),
    "ULA": Case(lambda model: ULA(model, step_size=0.02), bias=0.1),
    "SKROCK": Case(lambda model: SKROCK(model, step_size=0.1, stages=4), bias=0.15),
    "MoreauYosidaULA": Case(
        lambda model: MoreauYosidaULA(model, prox=nothing, smoothing=1.0, step_size=0.02), bias=0.1
    ),
    "TemperedSGLD": Case(lambda model: TemperedSGLD(model, step_size=0.02), bias=0.1),
    "ExactGaussian": Case(ExactGaussian, fields=("accept_prob", "error"), bias=0.02, gaussian_only=True),
}


def kernel_for(name, model):
    """The kernel, on the model or on the model with its scale fixed."""
    case = KERNELS[name]
    return case.make(condition(model, {"scale": 1.0}) if case.gaussian_only else model)
