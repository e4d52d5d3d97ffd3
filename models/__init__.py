"""Reference inverse problems: one file each, with a problem card, a NumPyro model, a simulator and the exact posterior.

Each module has

- ``model(data=None, ...)``: a NumPyro model function, written as a user would write it;
- ``simulate(key, ...)``: a truth from the prior and its data;
- ``exact_posterior(data, ...)``: mean, standard deviations, covariance and log evidence in float64, by NumPy and SciPy,
  independent of the samplers of ``numpyro_inverse``.

===================================  ================================================================
:mod:`models.deconvolution`          Gaussian blur of a signal or a picture
:mod:`models.tomography`             parallel-beam X-ray tomography
:mod:`models.gravity`                depth profile of density from surface gravity
:mod:`models.shaw`                   one-dimensional image restoration through a slit
:mod:`models.heat`                   surface heat flux from the temperature inside
:mod:`models.elliptic`               coefficients of an elliptic equation; nonlinear, no exact posterior
:mod:`models.levy`                   signals with independent increments; the posterior by draws, and by quadrature
:mod:`models.fashion_mnist`          small images under learned priors: deblurring, inpainting, compressed sensing
:mod:`models.restoration`            a photograph under the prior of a denoiser: deblurring, inpainting
:mod:`models.sign_ambiguous`         the square of a number: the smallest problem with a symmetry
:mod:`models.phase_retrieval`        a signal from amplitudes, real or complex; two unknowns by quadrature
:mod:`models.blind_deconvolution`    a signal and its blur, up to shifts of known probability
:mod:`models.magnetotellurics`       resistivity of layers from impedances at the surface; nonlinear
:mod:`models.linear_quadratic`       a linear system from its output, and a regulator's cost from its controls
:mod:`models.heating_choice`         what 900 households value, from real choices; published maximum, quadrature
:mod:`models.grid_world`             what an agent wants, by maximum-entropy inverse reinforcement learning
:mod:`models.diffusion_reaction`     -u'' + theta u = f, with the closed forms of every gradient
:mod:`models.bpinn`                  lambda u'' + k tanh u = f, the benchmark of Bayesian PINNs, 1-D and 2-D
:mod:`models.burgers`                viscosity of Burgers' equation, by the Cole-Hopf solution
:mod:`models.oscillator`             Lotka-Volterra parameters from a trajectory
:mod:`models.sbibm`                  ten tasks of simulation-based inference, each a module, with reference posteriors
:mod:`models.hare_lynx`              predators and prey: real data, with the exact likelihood and as a simulator
:mod:`models.lorenz63`               chaos in three variables: the trajectory, and averages over long times
:mod:`models.lorenz96`               chaos on a circle of latitude: the trajectory, and averages of a stochastic closure
===================================  ================================================================
"""
