"""Symmetries: groups that act on arrays and on the sites of a model, their orbits, and what is invariant."""

from numpyro_inverse.symmetry._check_action import check_action as check_action
from numpyro_inverse.symmetry._check_equivariance import Equivariance as Equivariance
from numpyro_inverse.symmetry._check_equivariance import check_equivariance as check_equivariance
from numpyro_inverse.symmetry._check_invariance import Invariance as Invariance
from numpyro_inverse.symmetry._check_invariance import check_invariance as check_invariance
from numpyro_inverse.symmetry._cyclic_shift import CyclicShift as CyclicShift
from numpyro_inverse.symmetry._draws import canonicalize as canonicalize
from numpyro_inverse.symmetry._draws import symmetrize as symmetrize
from numpyro_inverse.symmetry._estimators import OrbitMean as OrbitMean
from numpyro_inverse.symmetry._estimators import orbit_mean as orbit_mean
from numpyro_inverse.symmetry._estimators import outer_product_estimate as outer_product_estimate
from numpyro_inverse.symmetry._finite_group import FiniteGroup as FiniteGroup
from numpyro_inverse.symmetry._global_phase import GlobalPhase as GlobalPhase
from numpyro_inverse.symmetry._group import Group as Group
from numpyro_inverse.symmetry._group import Isometries as Isometries
from numpyro_inverse.symmetry._losses import orbit_loss as orbit_loss
from numpyro_inverse.symmetry._losses import outer_product_loss as outer_product_loss
from numpyro_inverse.symmetry._losses import squared_outer_product_distance as squared_outer_product_distance
from numpyro_inverse.symmetry._permutation import Permutation as Permutation
from numpyro_inverse.symmetry._product import Product as Product
from numpyro_inverse.symmetry._reflection import Reflection as Reflection
from numpyro_inverse.symmetry._rotation90 import Rotation90 as Rotation90
from numpyro_inverse.symmetry._scaling import Scaling as Scaling
from numpyro_inverse.symmetry._sign_flip import SignFlip as SignFlip
from numpyro_inverse.symmetry._symmetry import Symmetry as Symmetry
