"""Inference: coordinates, kernels, exact samplers, results."""

from typing import TYPE_CHECKING, Any

from numpyro_inverse.infer.denoising import LangevinDenoising as LangevinDenoising
from numpyro_inverse.infer.denoising import ParticleDraws as ParticleDraws
from numpyro_inverse.infer.denoising import ReverseDiffusion as ReverseDiffusion
from numpyro_inverse.infer.denoising import SplitGibbs as SplitGibbs
from numpyro_inverse.infer.denoising import diffusion_posterior as diffusion_posterior
from numpyro_inverse.infer.denoising import dps as dps
from numpyro_inverse.infer.denoising import twisted_smc as twisted_smc
from numpyro_inverse.infer.exact import ExactGaussian as ExactGaussian
from numpyro_inverse.infer.exact import ExactGibbs as ExactGibbs
from numpyro_inverse.infer.export import OrbitDiagnostics as OrbitDiagnostics
from numpyro_inverse.infer.export import orbit_diagnostics as orbit_diagnostics
from numpyro_inverse.infer.export import predict as predict
from numpyro_inverse.infer.export import predict_data as predict_data
from numpyro_inverse.infer.export import read_run as read_run
from numpyro_inverse.infer.export import run_to_disk as run_to_disk
from numpyro_inverse.infer.export import to_arviz as to_arviz
from numpyro_inverse.infer.kernels import MALA as MALA
from numpyro_inverse.infer.kernels import PCN as PCN
from numpyro_inverse.infer.kernels import SKROCK as SKROCK
from numpyro_inverse.infer.kernels import ULA as ULA
from numpyro_inverse.infer.kernels import DelayedAcceptance as DelayedAcceptance
from numpyro_inverse.infer.kernels import InfMALA as InfMALA
from numpyro_inverse.infer.kernels import InformedMALA as InformedMALA
from numpyro_inverse.infer.kernels import InformedPCN as InformedPCN
from numpyro_inverse.infer.kernels import LowRankNUTS as LowRankNUTS
from numpyro_inverse.infer.kernels import MoreauYosidaULA as MoreauYosidaULA
from numpyro_inverse.infer.kernels import OrbitMoves as OrbitMoves
from numpyro_inverse.infer.kernels import PnPULA as PnPULA
from numpyro_inverse.infer.kernels import ProjectedPnPULA as ProjectedPnPULA
from numpyro_inverse.infer.kernels import TemperedSGLD as TemperedSGLD
from numpyro_inverse.infer.kernels import lipschitz_constant as lipschitz_constant
from numpyro_inverse.infer.kernels import report_failures as report_failures
from numpyro_inverse.infer.kernels import suggest_step_size as suggest_step_size
from numpyro_inverse.infer.latent_gaussian import HyperPoints as HyperPoints
from numpyro_inverse.infer.latent_gaussian import LatentGaussian as LatentGaussian
from numpyro_inverse.infer.latent_gaussian import Marginal as Marginal
from numpyro_inverse.infer.surrogates import Surrogate as Surrogate
from numpyro_inverse.infer.surrogates import SurrogateFit as SurrogateFit
from numpyro_inverse.infer.surrogates import emulate as emulate
from numpyro_inverse.infer.surrogates import fit_surrogate as fit_surrogate
from numpyro_inverse.infer.whitening import BaseReparam as BaseReparam
from numpyro_inverse.infer.whitening import Coordinates as Coordinates
from numpyro_inverse.infer.whitening import fit_coordinates as fit_coordinates
from numpyro_inverse.infer.whitening import point_estimate as point_estimate
from numpyro_inverse.infer.whitening import whiten as whiten

if TYPE_CHECKING:
    from numpyro_inverse.infer.blackjax import BlackJAX as BlackJAX


def __getattr__(name: str) -> Any:
    """``BlackJAX`` when it is asked for: importing BlackJAX starts JAX's backends, and then it is too late for
    ``numpyro.set_host_device_count``.
    """
    if name == "BlackJAX":
        from numpyro_inverse.infer.blackjax import BlackJAX

        return BlackJAX
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "BlackJAX"})
