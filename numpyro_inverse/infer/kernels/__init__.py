"""MCMC kernels for NumPyro's ``MCMC``: Langevin, function-space, low-rank, delayed acceptance."""

from numpyro_inverse.infer.kernels._delayed_acceptance import DelayedAcceptance as DelayedAcceptance
from numpyro_inverse.infer.kernels._failures import FailureReport as FailureReport
from numpyro_inverse.infer.kernels._failures import report_failures as report_failures
from numpyro_inverse.infer.kernels._inf_mala import InfMALA as InfMALA
from numpyro_inverse.infer.kernels._informed_mala import InformedMALA as InformedMALA
from numpyro_inverse.infer.kernels._informed_pcn import InformedPCN as InformedPCN
from numpyro_inverse.infer.kernels._low_rank_nuts import LowRankNUTS as LowRankNUTS
from numpyro_inverse.infer.kernels._mala import MALA as MALA
from numpyro_inverse.infer.kernels._moreau_yosida import MoreauYosidaULA as MoreauYosidaULA
from numpyro_inverse.infer.kernels._orbit_moves import OrbitMoves as OrbitMoves
from numpyro_inverse.infer.kernels._pcn import PCN as PCN
from numpyro_inverse.infer.kernels._pnp_ula import PnPULA as PnPULA
from numpyro_inverse.infer.kernels._pnp_ula import ProjectedPnPULA as ProjectedPnPULA
from numpyro_inverse.infer.kernels._skrock import SKROCK as SKROCK
from numpyro_inverse.infer.kernels._step_size import lipschitz_constant as lipschitz_constant
from numpyro_inverse.infer.kernels._step_size import suggest_step_size as suggest_step_size
from numpyro_inverse.infer.kernels._tempered_sgld import TemperedSGLD as TemperedSGLD
from numpyro_inverse.infer.kernels._ula import ULA as ULA
