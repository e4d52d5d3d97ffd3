"""Split Gibbs sampling: the prior in one half-step, as a denoiser's draws; the data in the other, exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
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

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_positive,
    check_positive_number,
    check_real,
    check_trailing,
    describe,
    is_traced,
    show,
)
from numpyro_inverse._fingerprint import fingerprint
from numpyro_inverse.infer.denoising._denoised_site import Coupled, denoised_site
from numpyro_inverse.infer.exact._affine import Affine, AffineModel
from numpyro_inverse.infer.exact._exact_gaussian import DENSE_LIMIT
from numpyro_inverse.infer.exact._gaussian_posterior import Draw, Factored, GaussianPosterior, gaussian_posterior
from numpyro_inverse.infer.kernels._raise_if import raise_if

HERE = "SplitGibbs"
STALE = f"{HERE}: this state was made with other model arguments; start a new run instead of continuing it."


class SplitGibbsState(NamedTuple):
    """State of :class:`SplitGibbs`; every field is available as an extra field.

    Attributes:
        i: iteration, warm-up included.
        z: the site's value, a draw of the denoising posterior.
        x: its partner, a draw given the data; of every rung of the ladder, the reported one first.
        error: bound of any linear functional's error of ``x``, in standard deviations given ``z``.
        num_steps: conjugate gradient iterations of the data step; 0 where a root is known.
        accept_prob: of the exchanges between rungs, their mean; 1 without a ladder.
        diverging: false.
        posteriors: how the data steps draw.
        fingerprint: of the model's arguments.
        rng_key: key of the next iteration.
    """

    i: Int[Array, ""]
    z: dict[str, Array]
    x: Float[Array, "rungs *shape"]
    error: Float[Array, ""]
    num_steps: Int[Array, ""]
    accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    posteriors: GaussianPosterior
    fingerprint: UInt[Array, ""]
    rng_key: Array


class SplitGibbs(MCMCKernel):
    r"""Gibbs sampling of a signal z under a denoiser's prior and of a partner x that explains the data.

    With a prior p that is known by its denoiser, Gaussian data with affine mean and a coupling :math:`\rho`,

    .. math:: \pi(x, z \mid y) \propto p(z)\, N(x; z, \rho^2 I)\, N(y; A x, \tau^2),

    one iteration draws

    .. math:: z \sim p(z \mid x) \propto p(z)\, N(x; z, \rho^2 I), \qquad
              x \sim N(x; z, \rho^2 I)\, N(y; A x, \tau^2) / \text{const}.

    The first is the posterior of denoising x at noise level :math:`\rho`, which ``denoiser.sample(key, x, rho)``
    draws; the second is a Gaussian drawn by the means of :class:`ExactGaussian`. Neither has a step size.

    **Bias.** What is reported is z, a draw of

    .. math:: p(z)\, N(y; A z, \tau^2 + \rho^2 A A^T) / \text{const}:

    the prior is exact, the data are believed less. (x, the extra field ``x``, has the exact data and the smoothed prior
    :math:`p * N(0, \rho^2 I)`; it has lost what is sharp in the prior.) The weights of :meth:`log_weights` make draws
    of z the exact posterior's. What ``denoiser.sample`` is not exact in comes on top.

    **Mixing.** A smaller :math:`\rho` costs mixing: in a direction of posterior standard deviation s about
    :math:`2 s^2 / \rho^2` iterations a draw, and modes further apart than a few :math:`\rho` are not left. Several
    couplings :math:`\rho_1 < \rho_2 < \dots` are a ladder of chains that exchange their z (parallel tempering): of
    the law above only the data's term depends on :math:`\rho`, so that an exchange between rungs i and j is accepted
    with probability

    .. math:: \min\Bigl(1, \frac{\ell_i(z_j)\, \ell_j(z_i)}{\ell_i(z_i)\, \ell_j(z_j)}\Bigr), \qquad
              \ell_i(z) = N(y; A z, \tau^2 + \rho_i^2 A A^T),

    in which the prior cancels, and x is drawn anew after it. Draws are of the first rung.

    The chain starts at ``init_params``, or at z = 0, with x drawn given it; the start is never a draw.

    >>> def likelihood(data=None):
    ...     signal = numpyro.sample("signal", dist.ImproperUniform(dist.constraints.real, (), (3,)))
    ...     numpyro.sample("data", dist.Normal(signal, 0.1).to_event(1), obs=data)
    >>> denoiser = ni.denoisers.IncrementsDenoiser(dist.Laplace(0.0, 1.0))
    >>> mcmc = MCMC(ni.infer.SplitGibbs(likelihood, denoiser, coupling=0.1), num_warmup=10, num_samples=100)
    >>> mcmc.run(jax.random.key(0), data=jnp.array([0.1, 0.2, 1.5]), extra_fields=("x",))

    Args:
        model: a NumPyro model with one latent site, ``ImproperUniform`` on the real numbers (its prior is the
            denoiser's), and data that are Gaussian with a mean affine in it, as :class:`ExactGaussian` wants them.
        denoiser: with a method ``sample(key, x, sigma)`` that draws the clean signal given x; an exact one, or
            :class:`ReverseDiffusion` or :class:`LangevinDenoising` of any denoiser.
        coupling: :math:`\rho`, in the site's units, or a ladder of them, increasing. Half the noise where A is the
            identity is a start; then smaller, until the weights are even.
        tolerance: largest ``error`` of a draw of x. Default: 1e-2 in single, 1e-6 in double precision.
        max_steps: conjugate gradient iterations a data step may take.

    Raises:
        TypeError: ``model`` not callable, ``denoiser`` without ``sample``, a number that is none.
        ValueError: ``coupling``, ``tolerance`` or ``max_steps`` not positive, or a ladder that does not increase. When
            a run starts: not exactly one latent site, or one with a prior of its own; ``init_params`` that do not fit;
            a draw of another shape than the site's; what :class:`ExactGaussian` refuses.
        RuntimeError: the denoiser's draw is not finite, with the iteration; a data step misses ``tolerance``; a state
            made with other model arguments is continued.

    References:
        Vono, Dobigeon & Chainais, IEEE Trans. Signal Process. 67 (2019) 1648-1661; Coeurdoux, Dobigeon & Chainais,
        IEEE Trans. Image Process. 33 (2024) 3496-3507 (denoisers).
    """

    needs_density = True  # a factor that is known by its gradient alone does not make a Gaussian law
    sample_field = "z"

    def __init__(
        self,
        model: Callable,
        denoiser: Any,
        *,
        coupling: float | Sequence[float],
        tolerance: float | None = None,
        max_steps: int = 1000,
    ):
        self._model = check_callable(HERE, "model", model, "a NumPyro model")
        if not callable(getattr(denoiser, "sample", None)):
            raise TypeError(
                f"{HERE}: `denoiser` must have a method `sample(key, x, sigma)`; got {describe(denoiser)}. For "
                "one that is only a mean take `ReverseDiffusion(denoiser)` or `LangevinDenoising(denoiser)`."
            )
        self._denoiser = denoiser
        ladder = check_positive(HERE, "coupling", coupling)
        rising = jnp.ndim(ladder) == 0 or (jnp.ndim(ladder) == 1 and jnp.size(ladder) > 0)
        if rising and not is_traced(ladder):
            rising = bool(np.all(np.diff(np.atleast_1d(ladder)) > 0))
        if not rising:
            raise ValueError(f"{HERE}: `coupling` must be one number, or several that increase; got {show(coupling)}.")
        self._ladder = ladder if is_traced(ladder) else np.atleast_1d(np.asarray(ladder, float))
        self._tolerance = None if tolerance is None else check_positive_number(HERE, "tolerance", tolerance)
        self._max_steps = check_count(HERE, "max_steps", max_steps)
        self._sample_fn: Callable | None = None

    @property
    def model(self) -> Callable:
        """The model as given."""
        return self._model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields that ``MCMC`` always collects."""
        return ("z", "diverging")

    @property
    def tolerance(self) -> float:
        """Largest error of a draw of x, in its standard deviations given z."""
        if self._tolerance is not None:
            return self._tolerance
        return 1e-6 if jax.config.jax_enable_x64 else 1e-2

    def get_diagnostics_str(self, state: SplitGibbsState) -> str:
        """What the progress bar shows."""
        return f"{int(state.num_steps)} CG steps, error {float(state.error):.1e} sd"

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> SplitGibbsState:
        """Analyse the model and its data; z is ``init_params`` or 0, x drawn given it. Raises as the class says."""
        kwargs = model_kwargs or {}
        name, shape = denoised_site(HERE, self._model, model_args, kwargs)
        single = is_prng_key(rng_key)
        chains = () if single else rng_key.shape[:1]
        z = self._first(name, chains + shape, init_params)
        self._check_draw(shape, z.dtype)
        posteriors = self._posteriors(name, jnp.zeros(shape, z.dtype), model_args, kwargs)
        self._sample_fn = self.sample

        def begin(z, rng_key):
            rng_key, key = jax.random.split(rng_key)
            rungs = jnp.broadcast_to(z, (jnp.size(self._ladder), *shape))
            return rng_key, *self._data_steps(name, rungs, key, posteriors, model_args, kwargs)

        with nullcontext() if is_traced(model_args, kwargs) else jax.core.eval_context():
            mark = jax.jit(lambda: fingerprint((model_args, kwargs)))()
        rng_key, x, found = begin(z, rng_key) if single else jax.vmap(begin)(z, rng_key)
        return SplitGibbsState(
            i=jnp.zeros(chains, int),
            z={name: z},
            x=x,
            error=jnp.max(found.error, axis=-1),
            num_steps=jnp.max(found.num_steps, axis=-1),
            accept_prob=jnp.ones(chains, z.dtype),
            diverging=jnp.zeros(chains, bool),
            posteriors=posteriors,
            fingerprint=mark,
            rng_key=rng_key,
        )

    def sample(self, state: SplitGibbsState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> SplitGibbsState:
        """Draw z given x, exchange it between rungs, then draw x given z and the data."""
        kwargs, (name,) = model_kwargs or {}, state.z
        stale = fingerprint((model_args, kwargs)) != state.fingerprint
        broken = (
            f"{HERE}: the denoiser's draw is not finite at iteration {{}}. Is the coupling in the range of noise "
            "levels of `denoiser.sample(key, x, sigma)`?"
        )

        def iterate(x, i, rng_key):
            rng_key, key_prior, key_swap, key_data = jax.random.split(rng_key, 4)
            keys, ladder = jax.random.split(key_prior, len(x)), self._rungs(x.dtype)
            z = jnp.asarray(jax.vmap(self._denoiser.sample)(keys, x, ladder), x.dtype)
            z = raise_if(~jnp.all(jnp.isfinite(z)), i, broken, z)
            z = eqx.error_if(z, stale, STALE)
            accept = jnp.ones((), x.dtype)
            if len(ladder) > 1:
                z, accept = self._exchange(name, z, i, key_swap, state.posteriors, model_args, kwargs)
            x, found = self._data_steps(name, z, key_data, state.posteriors, model_args, kwargs)
            return rng_key, z[0], x, found, accept

        single = is_prng_key(state.rng_key)
        move = iterate if single else jax.vmap(iterate)
        rng_key, z, x, found, accept = move(state.x, state.i, state.rng_key)
        return state._replace(
            i=state.i + 1,
            z={name: z},
            x=x,
            error=jnp.max(found.error, axis=-1),
            num_steps=jnp.max(found.num_steps, axis=-1),
            accept_prob=accept,
            rng_key=rng_key,
        )

    def log_weights(self, samples: Mapping[str, Array], *args: Any, **kwargs: Any) -> Float[Array, "*draws"]:
        r"""Importance weights that turn draws of z into draws of the exact posterior,

        .. math:: \log N(y; A z, \tau^2) - \log N(y; A z, \tau^2 + \rho^2 A A^T) + \text{const}.

        Their effective number is ``jnp.exp(2 * logsumexp(w) - logsumexp(2 * w))``. Where that is small, so is the
        overlap: take a smaller coupling.

        Args:
            samples: draws of the site, ``mcmc.get_samples()``, of shape ``(..., *shape)``.
            *args: the model's arguments, with the data.
            **kwargs: the model's keyword arguments, with the data.

        Returns:
            An array of the draws' shape, with maximum 0.

        Raises:
            ValueError: ``samples`` lacks the site, or has another shape; and as the class says.
        """
        where = f"{HERE}.log_weights"
        name, shape = denoised_site(HERE, self._model, args, kwargs)
        if name not in samples:
            raise ValueError(f"{where}: `samples` has no site {name!r}; there are {', '.join(map(repr, samples))}.")
        draws = check_trailing(where, f"samples[{name!r}]", samples[name], shape)
        draws = jnp.asarray(draws, jnp.result_type(float))
        posteriors = self._posteriors(name, jnp.zeros(shape, draws.dtype), args, kwargs)
        first = jax.tree.map(lambda leaf: leaf[0], posteriors)

        @jax.jit
        def weights(flat):
            def weight(z):
                affine = self._given(name, z, self._rungs(z.dtype)[0], args, kwargs).affine()
                return -0.5 * _explained(first, affine)

            return jax.lax.map(weight, flat, batch_size=64)

        found = weights(draws.reshape((-1, *shape))).reshape(draws.shape[: draws.ndim - len(shape)])
        return found - jnp.max(found)

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """Adds the deterministic sites."""
        model = handlers.seed(self._model, jax.random.key(0))
        return partial(constrain_fn, model, model_args, model_kwargs or {}, return_deterministic=True)

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """The identity: the site is real."""
        return identity

    def wrap_model(self, wrapper: Callable) -> SplitGibbs:
        """A copy for the wrapped model."""
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        return kernel

    def _given(self, name: str, center: Array, rho: Any, args: tuple, kwargs: dict[str, Any]) -> AffineModel:
        """The model with the site normal around ``center``, with standard deviation ``rho``."""
        return AffineModel(Coupled(self._model, name, center, rho), args, kwargs, HERE)

    def _posteriors(self, name: str, zero: Array, args: tuple, kwargs: dict[str, Any]) -> GaussianPosterior:
        """How the data steps draw, stacked along the ladder."""
        traced, rungs = is_traced(args, kwargs, self._ladder), self._rungs(zero.dtype)
        model = self._given(name, zero, rungs[0], args, kwargs)
        first = gaussian_posterior(model, self.tolerance, self._max_steps, DENSE_LIMIT, traced)

        def at(rho):
            return first.refreshed(self._given(name, zero, rho, args, kwargs).affine())

        with nullcontext() if traced else jax.core.eval_context():
            return jax.jit(jax.vmap(at))(rungs)

    def _data_steps(
        self, name: str, z: Array, key: Array, posteriors: GaussianPosterior, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Array, Draw]:
        """Draws of x given z and the data, on every rung."""
        missed = (
            f"{HERE}: a data step has not reached `tolerance` = {self.tolerance:.1e} standard deviations within "
            f"{self._max_steps} conjugate gradient iterations. Raise `max_steps`, use `jax.enable_x64`, or accept a "
            "larger `tolerance`."
        )

        def step(z, rho, key, posterior):
            model = self._given(name, z, rho, args, kwargs)
            affine = model.affine()
            found = posterior.draw(affine, key)
            if isinstance(posterior, Factored):  # the same root around the mean for this z
                mean, error = _mean(posterior, affine)
                found = found._replace(noise=found.noise - posterior.mean + mean, error=error)
            noise = eqx.error_if(found.noise, ~(found.error <= self.tolerance), missed)
            return model.latents(noise)[name], found

        ladder = self._rungs(z.dtype)
        return jax.vmap(step)(z, ladder, jax.random.split(key, len(ladder)), posteriors)

    def _exchange(
        self, name: str, z: Array, i: Array, key: Array, posteriors: GaussianPosterior, args: tuple, kwargs: dict
    ) -> tuple[Array, Array]:
        """Exchange z between neighbors on the ladder, in turn above and below; the mean acceptance probability."""
        count = jnp.size(self._ladder)
        rung = jnp.arange(count)
        partner = rung + jnp.where((rung + i) % 2 == 0, 1, -1)
        partner = jnp.where((partner < 0) | (partner >= count), rung, partner)

        def log_likelihood(z, rho, posterior):
            affine = self._given(name, z, rho, args, kwargs).affine()
            return -0.5 * (jnp.sum(affine.offset**2) - _explained(posterior, affine))

        ladder = self._rungs(z.dtype)
        gain = jax.vmap(log_likelihood)(z[partner], ladder, posteriors) - jax.vmap(log_likelihood)(
            z, ladder, posteriors
        )
        probability = jnp.exp(jnp.minimum(gain + gain[partner], 0))
        uniforms = jax.random.uniform(key, (count,), z.dtype)[jnp.minimum(rung, partner)]
        paired = partner != rung
        z = z[jnp.where(uniforms < probability, partner, rung)]
        return z, jnp.sum(jnp.where(paired, probability, 0)) / jnp.maximum(jnp.sum(paired), 1)

    def _rungs(self, dtype: Any) -> Float[Array, " rungs"]:
        """The ladder."""
        return jnp.atleast_1d(jnp.asarray(self._ladder, dtype))

    def _first(self, name: str, shape: tuple[int, ...], given: Any) -> Array:
        """The first z."""
        dtype = jnp.result_type(float)
        if given is None:
            return jnp.zeros(shape, dtype)
        if not isinstance(given, dict) or list(given) != [name]:
            found = f"keys {list(given)}" if isinstance(given, dict) else describe(given)
            raise ValueError(f"{HERE}: `init_params` must be {{{name!r}: array}}; got {found}.")
        value = check_real(HERE, f"init_params[{name!r}]", given[name])
        if jnp.shape(value) != shape:
            raise ValueError(
                f"{HERE}: `init_params[{name!r}]` must have shape {shape}, chains first; got {jnp.shape(value)}."
            )
        return jnp.asarray(value, dtype)

    def _check_draw(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Refuse a denoiser whose draws do not have the site's shape."""
        example = jax.ShapeDtypeStruct(shape, dtype)
        found = jax.eval_shape(lambda x: self._denoiser.sample(jax.random.key(0), x, self._rungs(dtype)[0]), example)
        if getattr(found, "shape", None) != shape:
            raise ValueError(
                f"{HERE}: `denoiser.sample` must return an array of the site's shape, {shape}; got {describe(found)}."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without what ``init`` makes, which may not pickle."""
        return self.__dict__ | {"_sample_fn": None}


def _mean(posterior: GaussianPosterior, affine: Affine) -> tuple[Array, Array]:
    """The mean for this offset by what is known of the same map, and its error in standard deviations."""
    if not isinstance(posterior, Factored):
        found = posterior.with_data(affine)
        return found.mean, jnp.zeros((), found.mean.dtype)
    root, mean = posterior.root, jnp.zeros_like(posterior.mean)
    for _ in range(2):
        mean = mean + root(root.transpose(affine.gradient(mean, affine.offset)))
    return mean, jnp.maximum(posterior.error, jnp.linalg.norm(root.transpose(affine.gradient(mean, affine.offset))))


def _explained(posterior: GaussianPosterior, affine: Affine) -> Float[Array, ""]:
    r"""The part of :math:`\|r_0\|^2` that the coupling explains, :math:`r_0^T \tilde A H^{-1} \tilde A^T r_0`; the rest
    is :math:`r_0^T (I + \tilde A \tilde A^T)^{-1} r_0`."""
    return jnp.sum(affine.offset * affine.forward(_mean(posterior, affine)[0]))
