"""Every MCMC kernel, one line each: a name and how to make it from a model. The contract suite runs over them all."""

from typing import NamedTuple

import blackjax
from jax import tree
from numpyro.handlers import condition, scale

from numpyro_inverse.infer import (
    MALA,
    PCN,
    SKROCK,
    ULA,
    BlackJAX,
    DelayedAcceptance,
    ExactGaussian,
    ExactGibbs,
    InfMALA,
    InformedMALA,
    InformedPCN,
    LowRankNUTS,
    MoreauYosidaULA,
    OrbitMoves,
    PnPULA,
    TemperedSGLD,
)
from numpyro_inverse.symmetry import SignFlip, Symmetry


class Case(NamedTuple):
    """``make(model)``; ``fields`` it collects; the ``bias`` it admits in posterior standard deviations."""

    make: object
    fields: tuple[str, ...] = ("accept_prob", "step_size", "potential_energy", "num_grads")
    bias: float = 0.0
    gaussian_only: bool = False  # then the model has its scale fixed to 1
    shown: tuple[str, ...] = ("step_size", "mean_accept_prob")  # by the progress bar
    whole: bool = False  # it samples the scale and the white noise together or not at all


def nothing(z, smoothing):
    """The proximal operator of 0."""
    return tree.map(lambda v: v, z)


def unchanged(x, sigma):
    """The denoiser of no prior."""
    return x


ONE_OF_EACH_BASE = ("MALA", "SKROCK", "PCN", "BlackJAX mala")  # the others are run in full by the long suite

KERNELS = {
    "MALA": Case(MALA),
    "PCN": Case(PCN),
    "InfMALA": Case(InfMALA),
    "InformedPCN": Case(InformedPCN),
    "InformedMALA": Case(InformedMALA),
    "LowRankNUTS": Case(LowRankNUTS),
    "DelayedAcceptance": Case(lambda model: DelayedAcceptance(model, approximation=scale(model, scale=0.8))),
    "ULA": Case(lambda model: ULA(model, step_size=0.02), bias=0.1),
    "SKROCK": Case(lambda model: SKROCK(model, step_size=0.1, stages=4), bias=0.15),
    "MoreauYosidaULA": Case(
        lambda model: MoreauYosidaULA(model, prox=nothing, smoothing=1.0, step_size=0.02), bias=0.1
    ),
    "PnPULA": Case(
        lambda model: PnPULA(
            model,
            site="white",
            denoiser=unchanged,
            sigma=1.0,
            data_lipschitz=4.0,
            residual_lipschitz=1e-3,
            box=(-100.0, 100.0),
        ),
        bias=0.1,
    ),
    "TemperedSGLD": Case(lambda model: TemperedSGLD(model, step_size=0.02), bias=0.1),
    "BlackJAX mala": Case(lambda model: BlackJAX(model, algorithm=blackjax.mala)),
    "BlackJAX nuts": Case(lambda model: BlackJAX(model, algorithm=blackjax.nuts)),
    "BlackJAX mclmc": Case(lambda model: BlackJAX(model, algorithm=blackjax.mclmc), bias=0.1),
    "BlackJAX elliptical_slice": Case(lambda model: BlackJAX(model, algorithm=blackjax.elliptical_slice)),
    "OrbitMoves": Case(  # of a prior with the symmetry and data without
        lambda model: OrbitMoves(MALA(model), Symmetry(SignFlip(), "white")),
        shown=("step_size", "mean_accept_prob", "orbit_accept_prob"),
    ),
    "ExactGibbs": Case(
        lambda model: ExactGibbs(model, MALA, sites=["white"]),
        fields=("accept_prob", "step_size", "potential_energy", "error"),
        shown=("step_size",),
        whole=True,
    ),
    "ExactGaussian": Case(
        ExactGaussian, fields=("accept_prob", "error"), shown=("num_steps", "error"), bias=0.02, gaussian_only=True
    ),
}


def kernel_for(name, model):
    """The kernel, on the model or on the model with its scale fixed."""
    case = KERNELS[name]
    return case.make(condition(model, {"scale": 1.0}) if case.gaussian_only else model)
