"""Fixed points of a data term and a denoiser: plug-and-play, regularization by denoising, and when they converge."""

from numpyro_inverse.solvers._convergence_report import ConvergenceReport as ConvergenceReport
from numpyro_inverse.solvers._convergence_report import convergence_report as convergence_report
from numpyro_inverse.solvers._data_term import DataTerm as DataTerm
from numpyro_inverse.solvers._data_term import SmoothDataTerm as SmoothDataTerm
from numpyro_inverse.solvers._fixed_point import Divergence as Divergence
from numpyro_inverse.solvers._fixed_point import Iteration as Iteration
from numpyro_inverse.solvers._fixed_point import Solution as Solution
from numpyro_inverse.solvers._krasnoselskii_mann import krasnoselskii_mann as krasnoselskii_mann
from numpyro_inverse.solvers._least_squares import LeastSquares as LeastSquares
from numpyro_inverse.solvers._model_term import model_data_term as model_data_term
from numpyro_inverse.solvers._proximal_gradient import ProximalGradientMap as ProximalGradientMap
from numpyro_inverse.solvers._proximal_gradient import pnp_fista as pnp_fista
from numpyro_inverse.solvers._proximal_gradient import pnp_pgd as pnp_pgd
from numpyro_inverse.solvers._red import REDGradientMap as REDGradientMap
from numpyro_inverse.solvers._red import REDProximalMap as REDProximalMap
from numpyro_inverse.solvers._red import red_gradient_descent as red_gradient_descent
from numpyro_inverse.solvers._red import red_proximal_gradient as red_proximal_gradient
from numpyro_inverse.solvers._splitting import ADMMMap as ADMMMap
from numpyro_inverse.solvers._splitting import DouglasRachfordMap as DouglasRachfordMap
from numpyro_inverse.solvers._splitting import HalfQuadraticMap as HalfQuadraticMap
from numpyro_inverse.solvers._splitting import pnp_admm as pnp_admm
from numpyro_inverse.solvers._splitting import pnp_drs as pnp_drs
from numpyro_inverse.solvers._splitting import pnp_hqs as pnp_hqs
from numpyro_inverse.solvers._theorems import Hypothesis as Hypothesis
from numpyro_inverse.solvers._theorems import Theorem as Theorem
