"""Where a field lives: grids and meshes with physical lengths, their transforms, and maps to points."""

from numpyro_inverse.domains._barrier import Barrier as Barrier
from numpyro_inverse.domains._domain import Domain as Domain
from numpyro_inverse.domains._eigenbasis import Eigenbasis as Eigenbasis
from numpyro_inverse.domains._element_matrices import ElementMatrices as ElementMatrices
from numpyro_inverse.domains._grid import Grid as Grid
from numpyro_inverse.domains._mesh import Mesh as Mesh
from numpyro_inverse.domains._projections import l2_projection as l2_projection
from numpyro_inverse.domains._projections import point_values as point_values
from numpyro_inverse.domains._stacked import Stacked as Stacked
