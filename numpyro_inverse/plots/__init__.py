"""Pictures of fields and their uncertainty (matplotlib, from the extra ``examples``)."""

from numpyro_inverse.plots._draws import draws as draws
from numpyro_inverse.plots._field import field as field
