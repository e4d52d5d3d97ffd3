"""Forward maps as pytrees: linear operators with exact adjoints."""

from numpyro_inverse.operators.kronecker import Kronecker as Kronecker
from numpyro_inverse.operators.linear_operator import Composition as Composition
from numpyro_inverse.operators.linear_operator import LinearOperator as LinearOperator
from numpyro_inverse.operators.linear_operator import Stack as Stack
from numpyro_inverse.operators.linear_operator import Sum as Sum
