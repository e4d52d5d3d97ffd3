"""Inference: coordinates, kernels, exact samplers, results."""

from typing import TYPE_CHECKING, Any

from numpyro_inverse.infer.arviz import to_arviz as to_arviz
from numpyro_inverse.infer.delayed_acceptance import DelayedAcceptance as DelayedAcceptance
from numpyro_inverse.infer.exact_gaussian import ExactGaussian as ExactGaussian
from numpyro_inverse.infer.exact_gibbs import ExactGibbs as ExactGibbs
from numpyro_inverse.infer.fit_surrogate import SurrogateFit as SurrogateFit
from numpyro_inverse.infer.fit_surrogate import fit_surrogate as fit_surrogate
from numpyro_inverse.infer.inf_mala import InfMALA as InfMALA
from numpyro_inverse.infer.informed_mala import InformedMALA as InformedMALA
from numpyro_inverse.infer.informed_pcn import InformedPCN as InformedPCN
from numpyro_inverse.infer.langevin import MALA as MALA
from numpyro_inverse.infer.langevin import ULA as ULA
from numpyro_inverse.infer.low_rank_nuts import LowRankNUTS as LowRankNUTS
from numpyro_inverse.infer.moreau_yosida import MoreauYosidaULA as MoreauYosidaULA
from numpyro_inverse.infer.nuts_settings import nuts_settings as nuts_settings
from numpyro_inverse.infer.pcn import PCN as PCN
from numpyro_inverse.infer.reparam import PushforwardReparam as PushforwardReparam
from numpyro_inverse.infer.run_to_disk import read_run as read_run
from numpyro_inverse.infer.run_to_disk import run_to_disk as run_to_disk
from numpyro_inverse.infer.skrock import SKROCK as SKROCK
from numpyro_inverse.infer.step_size import lipschitz_constant as lipschitz_constant
from numpyro_inverse.infer.step_size import suggest_step_size as suggest_step_size
from numpyro_inverse.infer.surrogate import Surrogate as Surrogate
from numpyro_inverse.infer.surrogate import emulate as emulate
from numpyro_inverse.infer.tempered_sgld import TemperedSGLD as TemperedSGLD
from numpyro_inverse.infer.whiten import whiten as whiten

if TYPE_CHECKING:
    from numpyro_inverse.infer.blackjax_kernel import BlackJAX as BlackJAX


def __getattr__(name: str) -> Any:
    """``BlackJAX`` when it is asked for: importing BlackJAX starts JAX's backends, and then it is too late for
    ``numpyro.set_host_device_count``.
    """
    if name == "BlackJAX":
        from numpyro_inverse.infer.blackjax_kernel import BlackJAX

        return BlackJAX
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
