"""Independent exact draws from the posterior of a Gaussian model with an affine mean."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt
from numpyro import handlers
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import constrain_fn
from numpyro.util import identity, is_prng_key

from numpyro_inverse._checks import check_callable, check_count, check_positive_number, is_traced
from numpyro_inverse._fingerprint import fingerprint
from numpyro_inverse.infer.exact._affine import AffineModel, rounding_allowance
from numpyro_inverse.infer.exact._gaussian_posterior import Factored, GaussianPosterior, gaussian_posterior
from numpyro_inverse.infer.whitening import whiten

HERE = "ExactGaussian"
DENSE_LIMIT = 2048  # latent numbers, or data if they are fewer, up to which the covariance's root is dense
SUMMARY_LIMIT = 4096  # the same for covariances and evidences, which are asked for once

STALE = f"{HERE}: this state was made with other model arguments; start a new run instead of continuing it."


class ExactGaussianState(NamedTuple):
    """State of :class:`ExactGaussian`; every field is available as an extra field."""

    i: Int[Array, ""]
    z: dict[str, Array]
    error: Float[Array, ""]
    residual: Float[Array, ""]
    num_steps: Int[Array, ""]
    accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    posterior: GaussianPosterior
    fingerprint: UInt[Array, ""]
    rng_key: Array


class ExactGaussian(MCMCKernel):
    r"""Independent exact draws for a model with Gaussian latents, Gaussian data and an affine mean.

    The latent sites are written as an affine map of white noise :math:`\xi \sim N(0, I_n)`, fields through
    :func:`whiten`, and the observed sites as :math:`y = m(\xi) + S \epsilon` with :math:`m` affine. With
    :math:`\tilde A = S^{-1} \nabla m` and :math:`r_0 = S^{-1}(y - m(0))` the posterior is

    .. math:: \xi \mid y \sim N(H^{-1} \tilde A^T r_0,\; H^{-1}), \qquad H = I + \tilde A^T \tilde A,

    and each draw is independent of the one before: the effective sample size is the number of draws, no warm-up is
    needed (``num_warmup=0``; what there is makes independent draws too), and ``init_params`` have no effect. The map is
    taken by :func:`jax.linearize`. One of these ways to draw is chosen when a run starts:

    - :math:`H` is diagonal, as for a field under a convolution with the grid's own boundary: one product with its root;
    - up to 2048 latent numbers or data: a dense root in the smaller of the two spaces, from a QR factorization of
      :math:`(\tilde A; I)` or of :math:`(\tilde A^T; I)`, so that few data cost the same on any grid;
    - else perturb-then-optimize, matrix-free: solve
      :math:`H x = \tilde A^T (r_0 + \epsilon_1) + \epsilon_2` by conjugate gradients preconditioned by an estimate of
      the diagonal of :math:`H`.

    Accuracy is stated in the posterior's own units: ``error`` bounds how far any linear functional of a draw is from
    the exact draw, in posterior standard deviations of that functional (for the two roots: the relative error of the
    covariance and the error of the mean, both measured with the forward map itself). It excludes the rounding of the
    forward map, of order machine epsilon times signal-to-noise.

    >>> mcmc = MCMC(ExactGaussian(model), num_warmup=0, num_samples=1000)
    >>> mcmc.run(jax.random.key(0), data=y, extra_fields=("error", "residual", "num_steps"))

    Args:
        model: a NumPyro model. Latent sites are fields, ``Normal``, ``MultivariateNormal`` or
            ``LowRankMultivariateNormal`` of any shape, whose locations may be affine in other latents and whose scales
            may not depend on them; so are the observed sites, whatever their number, or :class:`ComplexNormal`. Data
            may have leading axes that their distribution lacks (replicates), as in NumPyro. Hyperparameters are fixed,
            by ``numpyro.handlers.condition`` if need be (a conditioned site may have any distribution).
        tolerance: largest ``error`` of a draw. Default: 1e-2 in single, 1e-6 in double precision.
        max_steps: conjugate gradient iterations a solve may take.

    Raises:
        ValueError: at the start of a run, naming the site: no sample, latent or observed site; a latent that is
            discrete, masked, improper, complex or not Gaussian; a likelihood that is not Gaussian; a mean that is not
            affine; a scale that depends on latents; data that are not finite, complex under a real distribution, of a
            shape that does not fit or would be broadcast against that of the distribution; a scaled density; an
            ``obs_mask``; a dense posterior spoiled by rounding. Also for ``tolerance`` or ``max_steps`` not positive.
        TypeError: ``model`` not callable, ``tolerance`` or ``max_steps`` no numbers.
        RuntimeError: a draw misses ``tolerance`` within ``max_steps``, or a state made with other model arguments is
            continued. It is raised inside compiled code (``equinox.error_if``; JAX shows it as ``JaxRuntimeError`` or
            ``ValueError``, with the message), so it appears when ``run`` returns or the draws are first looked at, for
            every chain method. No such draw is ever returned.

    References:
        Papandreou & Yuille, NeurIPS 23 (2010); Bardsley, Solonen, Haario & Laine, SIAM J. Sci. Comput. 36 (2014)
        A1895-A1910; Hestenes & Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409-436.
    """

    needs_density = True  # a factor that is known by its gradient alone does not make a Gaussian law

    def __init__(self, model: Callable, *, tolerance: float | None = None, max_steps: int = 1000):
        self._model = check_callable(HERE, "model", model, "a NumPyro model")
        self._tolerance = None if tolerance is None else check_positive_number(HERE, "tolerance", tolerance)
        self._max_steps = check_count(HERE, "max_steps", max_steps)

    @property
    def model(self) -> Callable:
        """The model as given; fields are whitened inside."""
        return self._model

    @property
    def sample_field(self) -> str:
        """``"z"``: latent sites, fields as white noise."""
        return "z"

    @property
    def tolerance(self) -> float:
        """Largest error of a draw, in posterior standard deviations."""
        if self._tolerance is not None:
            return self._tolerance
        return 1e-6 if jax.config.jax_enable_x64 else 1e-2

    def get_diagnostics_str(self, state: ExactGaussianState) -> str:
        """What the progress bar shows."""
        return f"{int(state.num_steps)} CG steps, error {float(state.error):.1e} sd"

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> ExactGaussianState:
        """Analyse the model and its data; the first state is at the posterior mean. Raises as the class says."""
        posterior = self._posterior(model_args, model_kwargs)
        model = self._white(model_args, model_kwargs)
        with nullcontext() if is_traced(model_args, model_kwargs) else jax.core.eval_context():
            mean, mark = jax.jit(lambda: (model.latents(posterior.mean), fingerprint((model_args, model_kwargs))))()
        chains = () if is_prng_key(rng_key) else rng_key.shape[:1]
        dtype = posterior.mean.dtype
        return ExactGaussianState(
            i=jnp.zeros(chains, int),
            z={name: jnp.broadcast_to(value, chains + value.shape) for name, value in mean.items()},
            error=jnp.full(chains, jnp.inf, dtype),
            residual=jnp.full(chains, jnp.inf, dtype),
            num_steps=jnp.zeros(chains, int),
            accept_prob=jnp.ones(chains, dtype),
            diverging=jnp.zeros(chains, bool),
            posterior=posterior,
            fingerprint=mark,
            rng_key=rng_key,
        )

    def sample(
        self, state: ExactGaussianState, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> ExactGaussianState:
        """An independent draw, whatever the state."""
        model = self._white(model_args, model_kwargs)
        stale = fingerprint((model_args, model_kwargs)) != state.fingerprint

        def draw(rng_key):
            rng_key, key = jax.random.split(rng_key)
            found = state.posterior.draw(model.affine(), key)
            noise = eqx.error_if(found.noise, stale, STALE)
            noise = eqx.error_if(noise, ~(found.error <= self.tolerance), self._missed)
            return rng_key, model.latents(noise), found

        single = is_prng_key(state.rng_key)
        rng_key, z, found = draw(state.rng_key) if single else jax.vmap(draw)(state.rng_key)
        return state._replace(
            i=state.i + 1, z=z, error=found.error, residual=found.residual, num_steps=found.num_steps, rng_key=rng_key
        )

    @property
    def _missed(self) -> str:
        return (
            f"{HERE}: a draw has not reached `tolerance` = {self.tolerance:.1e} posterior standard deviations within "
            f"{self._max_steps} conjugate gradient iterations. Raise `max_steps`, use `jax.enable_x64`, or accept a "
            "larger `tolerance`."
        )

    def refresh(
        self, state: ExactGaussianState, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> ExactGaussianState:
        """The state for other model arguments, as Gibbs sampling needs it; affinity is not tested again."""
        posterior = state.posterior.refreshed(self._white(model_args, model_kwargs).affine())
        return state._replace(posterior=posterior, fingerprint=fingerprint((model_args, model_kwargs)))

    def with_data(
        self, state: ExactGaussianState, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> ExactGaussianState:
        """The state for other data and nothing else new: the covariance's root is kept, its error measured."""
        posterior = state.posterior.with_data(self._white(model_args, model_kwargs).affine())
        return state._replace(posterior=posterior, fingerprint=fingerprint((model_args, model_kwargs)))

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """Adds the deterministic sites, the fields among them."""
        model = handlers.seed(whiten(self._model), jax.random.key(0))
        return partial(constrain_fn, model, model_args, model_kwargs or {}, return_deterministic=True)

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """The identity: every latent is real."""
        return identity

    def wrap_model(self, wrapper: Callable) -> ExactGaussian:
        """A copy for the wrapped model."""
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        return kernel

    def _white(self, args: tuple, kwargs: dict[str, Any] | None) -> AffineModel:
        """The model as a function of white noise; fields whitened."""
        return AffineModel(whiten(self._model), args, kwargs, HERE)

    def _posterior(self, args: tuple, kwargs: dict[str, Any] | None, dense_limit: int | None = None) -> Any:
        model = self._white(args, kwargs)
        dense_limit = DENSE_LIMIT if dense_limit is None else dense_limit
        return gaussian_posterior(model, self.tolerance, self._max_steps, dense_limit, is_traced(args, kwargs))

    def posterior_mean(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Posterior means of the latent sites, the fields, and every deterministic site that is affine in the latents.

        Other deterministic sites are left out: their mean is not their value at the mean.

        Args:
            *args: the model's arguments, with the data.
            **kwargs: the model's keyword arguments, with the data.

        Returns:
            Arrays of the sites' shapes, keyed by site.

        Raises:
            ValueError: as the class says.
        """
        model = self._white(args, kwargs)
        posterior = self._posterior(args, kwargs)
        linear = self._affine_sites(model)
        values = jax.jit(model.values)(posterior.mean)
        return {name: value for name, value in values.items() if name in linear}

    def posterior_covariance(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Posterior covariance of each site that :meth:`posterior_mean` gives, of shape ``shape + shape``.

        Args:
            *args: the model's arguments, with the data.
            **kwargs: the model's keyword arguments, with the data.

        Raises:
            ValueError: more than 4096 numbers, latent or in one site; and as the class says.
        """
        model = self._white(args, kwargs)
        advice = "Estimate what you need from draws: `MCMC(ExactGaussian(model), ...)`."
        if model.size > SUMMARY_LIMIT:
            raise ValueError(
                f"{HERE}.posterior_covariance: {model.size} latent numbers; dense up to {SUMMARY_LIMIT}. {advice}"
            )
        linear = self._affine_sites(model)
        large = [name for name, shape in linear.items() if np.prod(shape, dtype=int) > SUMMARY_LIMIT]
        if large:
            raise ValueError(
                f"{HERE}.posterior_covariance: site {large[0]!r} has shape {linear[large[0]]}, more than "
                f"{SUMMARY_LIMIT} numbers. {advice}"
            )
        posterior = self._posterior(args, kwargs, dense_limit=SUMMARY_LIMIT)

        def columns():
            _, push = jax.linearize(model.values, posterior.mean)
            eye = jnp.eye(model.size, dtype=posterior.mean.dtype)
            return jax.lax.map(lambda e: push(posterior.root(e)), eye, batch_size=128)

        found = {}
        for name, value in jax.jit(columns)().items():
            if name in linear:
                flat = value.reshape((model.size, -1))
                found[name] = jnp.matmul(flat.T, flat, precision="highest").reshape(linear[name] * 2)
        return found

    def log_evidence(self, *args: Any, **kwargs: Any) -> Float[Array, ""]:
        r"""Log density of the data, all observed sites together:

        .. math:: -\tfrac12 \bigl( \|r_0 - \tilde A \mu\|^2 + \|\mu\|^2 + \log |H| + m \log 2\pi \bigr) - \log |S|,

        with :math:`\mu` the posterior mean of :math:`\xi`. Conditioned hyperparameters count as observed, so their
        prior density is part of it.

        Args:
            *args: the model's arguments, with the data.
            **kwargs: the model's keyword arguments, with the data.

        Raises:
            ValueError: more than 4096 latent numbers and as many data unless :math:`H` is diagonal; and as the class
                says.
        """
        model = self._white(args, kwargs)
        posterior = self._posterior(args, kwargs, dense_limit=SUMMARY_LIMIT)
        if not isinstance(posterior, Factored):
            raise ValueError(
                f"{HERE}.log_evidence: the determinant needs a dense factorization of {model.size} latent numbers, or "
                f"of the data; the limit is {SUMMARY_LIMIT}. Compare models on a coarser grid (`grid.coarsened()`), or "
                "make prior and operator share a transform (a field under a convolution with its grid's boundary)."
            )

        return jax.jit(lambda: posterior.log_evidence(model.affine()) + model.log_normalizer())()

    def _affine_sites(self, model: AffineModel) -> dict[str, tuple[int, ...]]:
        """Shapes of the latent and real deterministic sites that are affine in the latents."""

        def bends():
            origin = jnp.zeros(model.size, model.dtype)
            noise = 2 * jax.random.normal(jax.random.key(1), origin.shape, origin.dtype)
            base, push = jax.linearize(model.values, origin)
            actual, slope = model.values(noise), push(noise)
            return {
                k: (jnp.linalg.norm(jnp.ravel(v - base[k] - slope[k])), jnp.linalg.norm(jnp.ravel(v)), base[k])
                for k, v in actual.items()
            }

        allowed = 10 * rounding_allowance(model.dtype)
        return {
            k: jnp.shape(b) for k, (bend, size, b) in jax.jit(bends)().items() if float(bend) <= allowed * float(size)
        }
