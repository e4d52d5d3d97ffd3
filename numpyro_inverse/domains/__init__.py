"""Where a field lives: grids with physical lengths, their transforms, and maps between them."""

from numpyro_inverse.domains._domain import Domain as Domain
from numpyro_inverse.domains._grid import Grid as Grid
