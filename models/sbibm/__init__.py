"""The ten tasks of the benchmark of simulation-based inference by Lueckmann et al. (AISTATS 2021), one module each.

Each module has

- ``model(x=None)``: a NumPyro model with the latent ``theta``, one vector, and the site ``x`` of a
  :class:`numpyro_inverse.distributions.Simulator`;
- ``simulate(rng_key, theta)``: the simulator;
- ``log_likelihood(theta, x)``: what the benchmark pretends not to know;
- ``observation(k)`` and ``true_parameters(k)``, k = 1, ..., 5: the benchmark's own.

=============================================  ====================================================  ========  =====
module                                         what                                                  unknowns  data
=============================================  ====================================================  ========  =====
:mod:`models.sbibm.gaussian_linear`            mean of a normal law, normal prior                          10     10
:mod:`models.sbibm.gaussian_linear_uniform`    the same, uniform prior                                     10     10
:mod:`models.sbibm.gaussian_mixture`           common mean of two normal laws                               2      2
:mod:`models.sbibm.two_moons`                  two thin crescents                                           2      2
:mod:`models.sbibm.slcp`                       simple likelihood, complex posterior                         5      8
:mod:`models.sbibm.slcp_distractors`           the same among noise                                         5    100
:mod:`models.sbibm.bernoulli_glm`              a neuron's filter, sufficient statistics                    10     10
:mod:`models.sbibm.bernoulli_glm_raw`          the same from spikes                                        10    100
:mod:`models.sbibm.sir`                        an epidemic                                                  2     10
:mod:`models.sbibm.lotka_volterra`             predators and prey                                           4     20
=============================================  ====================================================  ========  =====
"""

from models.sbibm._published import reference_draws as reference_draws

TASKS = (
    "gaussian_linear",
    "gaussian_linear_uniform",
    "gaussian_mixture",
    "two_moons",
    "slcp",
    "slcp_distractors",
    "bernoulli_glm",
    "bernoulli_glm_raw",
    "sir",
    "lotka_volterra",
)
