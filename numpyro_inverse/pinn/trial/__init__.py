"""Trial spaces: what the solution of an equation is looked for in. Any pytree that is a function of a point is one."""

from numpyro_inverse.pinn.trial._bases import ChebyshevBasis as ChebyshevBasis
from numpyro_inverse.pinn.trial._bases import LinearBasis as LinearBasis
from numpyro_inverse.pinn.trial._bases import PolynomialBasis as PolynomialBasis
from numpyro_inverse.pinn.trial._bases import SineBasis as SineBasis
from numpyro_inverse.pinn.trial._enforced import Enforced as Enforced
from numpyro_inverse.pinn.trial._expansions import ExponentialExpansion as ExponentialExpansion
from numpyro_inverse.pinn.trial._expansions import MaternExpansion as MaternExpansion
from numpyro_inverse.pinn.trial._networks import MLP as MLP
from numpyro_inverse.pinn.trial._networks import FourierFeatures as FourierFeatures
from numpyro_inverse.pinn.trial._networks import ModifiedMLP as ModifiedMLP
