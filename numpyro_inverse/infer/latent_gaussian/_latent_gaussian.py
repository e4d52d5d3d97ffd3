"""Latent Gaussian models: hyperparameters on the Laplace-approximated marginal, latents afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_key, check_model_call, check_real, describe
from numpyro_inverse._model import trace_at
from numpyro_inverse.infer.latent_gaussian._dense_latents import DenseLatents, dense_latents
from numpyro_inverse.infer.latent_gaussian._hyper_points import HyperPoints, ccd_points, grid_points, nuts_settings
from numpyro_inverse.infer.latent_gaussian._laplace import Laplace, find_mode, laplace
from numpyro_inverse.infer.latent_gaussian._reading import HERE, LatentModel, Values, prior_mean, read_model
from numpyro_inverse.infer.latent_gaussian._sparse_latents import SparseLatents, sparse_latents

ATTEMPTS = 10  # draws from the prior of the hyperparameters at one of which there must be an approximation
STARTS = 4  # of these with an approximation, the best of which is where searches start

Hyper = Mapping[str, Float[Array, "..."]]


class Marginal(NamedTuple):
    """Mean and standard deviation of a site, of its shape."""

    mean: Float[Array, "*shape"]
    sd: Float[Array, "*shape"]


class LatentGaussian(eqx.Module):
    r"""A model with its Gaussian latents integrated out by the Laplace approximation.

    Given hyperparameters :math:`\theta`, fields and normal effects x are Gaussian with precision :math:`Q(\theta)` and
    mean :math:`\mu(\theta)`, and the data depend on them through a linear predictor
    :math:`\eta = o(\theta) + A (x - \mu)`, each number of which has its own data. With the mode :math:`x^*` of
    :math:`p(x \mid y, \theta)` and :math:`W = -\nabla_\eta^2 \log p(y \mid \eta, \theta)` there,

    .. math:: \log \hat p(y \mid \theta) = \log p(y \mid \eta^*, \theta)
        - \tfrac12 (x^* - \mu)^{\mathsf T} Q (x^* - \mu) + \tfrac12 \log\det Q
        - \tfrac12 \log\det (Q + A^{\mathsf T} W A),

    which is exact for normal data. :attr:`model` is the NumPyro model of :math:`\theta` alone with this density, for
    NUTS or any other kernel. Its gradient is exact: the mode's derivative is that of a Newton step from it (the
    implicit function theorem), and that of the determinants comes from inverses on their patterns. Afterwards
    :meth:`sample` and :meth:`marginals` give the latents, from
    :math:`N(x^*, (Q + A^{\mathsf T} W A)^{-1})` mixed over :math:`\theta`.

    >>> # not run: some seconds of compiling; the documentation's page of latent Gaussian models runs it
    >>> latent = LatentGaussian(model, "eta", model_args=(mesh, seen, counts))  # doctest: +SKIP
    >>> mcmc.run(key, latent)  # with MCMC(NUTS(latent.model), ...)  # doctest: +SKIP
    >>> draws = latent.sample(key, mcmc)  # doctest: +SKIP

    Fields on a mesh with :math:`\alpha \le 2`, in time or correlated with others too, and up to 64 normal effects have
    sparse precisions: with :math:`Q = K^{\mathsf T} C^{-1} K` (the consistent mass matrix C has a dense inverse) what
    is factorized is

    .. math:: \begin{pmatrix} C & K \\ K^{\mathsf T} & -A^{\mathsf T} W A \end{pmatrix},

    in the fronts of the sparse Cholesky factorization, so that the law is that of ``Matern(mesh, ...)`` to rounding.
    All other Gaussian fields (on grids, in eigenfunctions, products) are whitened, and treated by dense algebra in the
    space of the data, or of the numbers where these are fewer: the smaller of both is at most 2048.

    The mode is found by damped Newton steps, of which normal data need one. Where there is none, or none within 50
    steps, the density is NaN: a divergence for a sampler, an error in :meth:`sample` and :meth:`marginals`.

    A pytree: the argument of :attr:`model`.

    Args:
        model: a NumPyro model.
        predictor: the deterministic site that is :math:`\eta`, or several.
        sites: the latent sites to integrate out; default: the fields, and every normal site and sequence of
            coefficients that acts on the predictor alone, and affinely.
        model_args: the model's arguments, with the data.
        model_kwargs: its keyword arguments.

    Raises:
        TypeError: ``model`` is not callable, ``predictor`` or ``sites`` no names.
        ValueError: naming the site: a model without latent or observed sites, without a field, or without the
            predictor; a latent that is not Gaussian, masked or scaled; a predictor that is not affine in the latents or
            does not depend on them; latents that enter elsewhere too; data that are not finite or not independent given
            the predictor; a discrete hyperparameter; too many latents without a sparse precision; no approximation at
            any of 10 draws of the hyperparameters from their prior.

    References:
        Rue, Martino & Chopin, JRSS B 71 (2009) 319-392, sections 3 and 6.5; Rasmussen & Williams, Gaussian Processes
        for Machine Learning (2006), algorithms 3.1 and 5.1; Margossian et al., NeurIPS 33 (2020) (the adjoint).
    """

    reading: LatentModel
    latents: SparseLatents | DenseLatents
    start: Values
    guess: Float[Array, " m"]

    def __init__(
        self,
        model: Callable,
        predictor: str | Sequence[str],
        *,
        sites: Sequence[str] | None = None,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ):
        model, args, kwargs = check_model_call(HERE, model, model_args, model_kwargs)
        names = (predictor,) if isinstance(predictor, str) else _names("predictor", predictor)
        if not names:
            raise ValueError(f"{HERE}: `predictor` must name a deterministic site; got none.")
        sites = None if sites is None else _names("sites", sites)
        self.reading, hyper, mean = read_model(model, args, kwargs, names, sites)
        others = self.reading.draw_hyper(jax.random.key(1))
        self.latents = sparse_latents(self.reading, hyper, others) or dense_latents(self.reading, hyper, others)
        self.start, self.guess = hyper, mean
        self.start, self.guess = self._first()

    def _first(self) -> tuple[Values, Array]:
        """Hyperparameters from the prior at which there is a mode, and the predictor there: the best of some, for a
        prior of a range has wild draws, around which single precision finds no density."""
        found: list[tuple[float, Values, Array]] = []
        for k in range(ATTEMPTS):
            hyper = self.reading.draw_hyper(jax.random.key(k))
            value, steps, decrement, eta = _report(self, hyper)
            if np.isfinite(value):
                found.append((float(value), hyper, eta))
            if len(found) == STARTS:
                break
        if found:
            return max(found, key=lambda each: each[0])[1:]
        raise ValueError(
            f"{HERE}: at none of {ATTEMPTS} draws of the hyperparameters {', '.join(map(repr, self.reading.hyper))} "
            f"from their prior was a mode of the latents {', '.join(map(repr, self.reading.latents))} found (the last "
            f"time {int(steps)} Newton steps ended with a squared decrement of {decrement:.2g}). The likelihood of "
            f"{', '.join(map(repr, self._data))} may not be log-concave or not twice differentiable in the predictor; "
            "or the prior is too wide for this precision (`jax.enable_x64`)."
        )

    @property
    def _data(self) -> list[str]:
        trace = self.reading.trace(self.start)
        return [k for k, s in trace.items() if s["type"] == "sample" and s["is_observed"]]

    @property
    def model(self) -> Callable[[LatentGaussian], None]:
        """The NumPyro model of the hyperparameters, with the data's log density as the factor ``log_marginal``. Its
        argument is this object: ``mcmc.run(key, latent)``."""
        return marginal_model

    def _laplace(self, hyper: Hyper) -> Laplace:
        law = self.latents.at(self.reading, dict(hyper))
        like = self.reading.trace(hyper)
        fixed = jax.lax.stop_gradient(dict(hyper))
        mode = find_mode(law.fixed(), self.reading.log_likelihood(fixed, like), jax.lax.stop_gradient(self.guess))
        return laplace(law, self.reading.log_likelihood(hyper, like), mode)

    def log_marginal(self, hyper: Hyper) -> Float[Array, ""]:
        r""":math:`\log \hat p(y \mid \theta)` at constrained hyperparameters; NaN without a mode. Differentiable once.

        Raises:
            ValueError: a hyperparameter is missing.
        """
        return _log_marginal(self, self._named("hyper", hyper))

    def _named(self, argument: str, hyper: Any) -> Values:
        if not isinstance(hyper, Mapping):
            raise TypeError(f"{HERE}: `{argument}` must be hyperparameters by site; got {describe(hyper)}.")
        for name in self.reading.hyper:
            if name not in hyper:
                there = ", ".join(map(repr, hyper)) or "none"
                raise ValueError(f"{HERE}: hyperparameter {name!r} is missing in `{argument}`; given are {there}.")
        return {k: jnp.asarray(check_real(HERE, f"{argument}[{k!r}]", hyper[k])) for k in self.reading.hyper}

    def sample(self, key: Array, posterior: MCMC | Hyper) -> dict[str, Array]:
        r"""A draw of the latents for each of the hyperparameters, and all other sites.

        A draw is :math:`x^* + u - (Q + H)^{-1} (H u + A^{\mathsf T} W^{1/2} \epsilon)`, :math:`H = A^{\mathsf T} W A`,
        with u from the prior.

        Args:
            key: a random key.
            posterior: a run of :attr:`model`, or constrained draws by site; :meth:`HyperPoints.resample` gives
                some of a grid.

        Returns:
            All latent and deterministic sites by name, predictors too, with the leading axes of the draws (chain and
            draw for a run): what :func:`to_arviz`, :func:`predict` and ``Predictive`` take as draws of the model.

        Raises:
            TypeError: ``key`` is no random key.
            ValueError: a hyperparameter is missing or of another shape; no mode at some draw; a likelihood that is not
                log-concave at a mode.
        """
        check_key(f"{HERE}.sample", "key", key)
        draws, shape = self._draws(posterior)
        count = int(np.prod(shape, dtype=int))
        found, fine, concave = _sample_all(self, draws, jax.random.split(key, count))
        self._refuse(~np.asarray(fine), "there is no mode")
        self._refuse(
            ~np.asarray(concave), "the likelihood is not log-concave at the mode, so that nothing can be drawn"
        )
        return {name: value.reshape(shape + value.shape[1:]) for name, value in found.items()}

    def marginals(self, posterior: MCMC | Hyper | HyperPoints) -> dict[str, Marginal]:
        r"""Mean and standard deviation of each latent site and predictor, mixed over the hyperparameters:

        .. math:: E x = \sum_k w_k x^*_k, \qquad
            \operatorname{Var} x = \sum_k w_k \bigl(\operatorname{diag} (Q + H)_k^{-1} + (x^*_k - E x)^2\bigr).

        Args:
            posterior: a run of :attr:`model`, constrained draws by site, or weighted points.

        Raises:
            ValueError: as :meth:`sample`.
        """
        draws, shape = self._draws(posterior.values if isinstance(posterior, HyperPoints) else posterior)
        count = int(np.prod(shape, dtype=int))
        weights = posterior.weights if isinstance(posterior, HyperPoints) else jnp.full(count, 1 / count)
        means, sds, fine = _marginals_all(self, draws, jnp.arange(count))
        self._refuse(~np.asarray(fine), "there is no mode")
        found = {}
        for name, value in means.items():
            mean = jnp.tensordot(weights, value, 1)
            found[name] = Marginal(mean, jnp.sqrt(jnp.tensordot(weights, sds[name] ** 2 + (value - mean) ** 2, 1)))
        return found

    def integrate_grid(self, *, step: float = 1.0, span: float = 4.0, drop: float = 7.0) -> HyperPoints:
        r"""Weighted hyperparameters on a grid, for up to 3 numbers of them.

        The grid is along the axes of the Hessian of :math:`\log \hat p(\theta, y)` at its mode, in unconstrained
        space and in units of the standard deviations there: :math:`(2\, \text{span} / \text{step} + 1)^d` points, of
        which those are kept whose log density is within ``drop`` of the best.

        Raises:
            ValueError: a number that is not positive; more than 3 hyperparameters; no mode of theirs.

        Warns:
            UserWarning: more than 2 % of the weight is at the edge of the grid.
        """
        return grid_points(self, step, span, drop)

    def integrate_ccd(self) -> HyperPoints:
        r"""Weighted hyperparameters at a central composite design: the mode, and points on a sphere of radius
        :math:`1.1 \sqrt d` (on the axes and in the corners), weighted so that a normal law has its mean and
        covariance. For up to 6 numbers.

        Raises:
            ValueError: more than 6 hyperparameters, or none; no mode of theirs.

        References:
            Rue, Martino & Chopin (2009), section 6.5.
        """
        return ccd_points(self)

    def nuts_settings(self) -> dict[str, Any]:
        r"""Keyword arguments for NumPyro's ``NUTS`` on :attr:`model`.

        The mass matrix is the Hessian of :math:`-\log \hat p(\theta, y)` at its mode, in unconstrained space, and is
        kept; the chains start at draws of a Gaussian around the mode that is 1.5 times as wide. Warm-up has to find the
        step size, for an acceptance rate of .9: 50 iterations do. For up to 64 numbers.

        >>> # not run: the documentation's page of latent Gaussian models runs it
        >>> kernel = NUTS(latent.model, **latent.nuts_settings())  # doctest: +SKIP

        Raises:
            ValueError: more than 64 hyperparameters, or none; no mode of theirs.
        """
        return nuts_settings(self)

    def _draws(self, posterior: Any) -> tuple[Values, tuple[int, ...]]:
        """Hyperparameters with one leading axis, and the shape that it stands for."""
        if isinstance(posterior, MCMC):
            posterior = jax.tree.map(np.asarray, posterior.get_samples(group_by_chain=True))  # from several devices
        hyper = self._named("posterior", posterior)
        shapes = {k: v.shape[: v.ndim - self.start[k].ndim] for k, v in hyper.items()}
        shape = next(iter(shapes.values()), ())
        for name, value in hyper.items():
            if value.shape != shape + self.start[name].shape:
                raise ValueError(
                    f"{HERE}: hyperparameter {name!r} must have the shape {self.start[name].shape} after the axes of "
                    f"the draws, {shape}; got {value.shape}."
                )
        return {k: v.reshape(-1, *self.start[k].shape) for k, v in hyper.items()}, shape

    def _refuse(self, bad: np.ndarray, what: str) -> None:
        if bad.any():
            raise ValueError(
                f"{HERE}: at {int(bad.sum())} of {bad.size} hyperparameters, the first at index {int(np.argmax(bad))}, "
                f"{what}. Leave them out, or use NUTS on the whole model."
            )


def _names(argument: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not (isinstance(value, Sequence) and all(isinstance(k, str) for k in value)):
        raise TypeError(f"{HERE}: `{argument}` must be a sequence of names; got {describe(value)}.")
    return tuple(value)


def marginal_model(latent: LatentGaussian) -> None:
    """The hyperparameters of a :class:`LatentGaussian`, with the data's log density as a factor."""
    reading = latent.reading

    def at_rest(site: dict[str, Any]) -> Any:
        hidden = site["type"] == "sample" and site["name"] in reading.latents
        return prior_mean(site) if hidden else None

    whole = handlers.substitute(reading.model, substitute_fn=at_rest)
    shown = handlers.block(whole, hide=[name for name in reading.names if name not in reading.hyper])
    with handlers.trace() as trace:
        shown(*reading.args, **reading.kwargs)
    hyper = {name: trace[name]["value"] for name in reading.hyper}
    with handlers.block():
        value = _log_marginal(latent, hyper)
    numpyro.factor("log_marginal", value)


@eqx.filter_jit  # NumPyro evaluates models outside of compiled programs where a chain starts
def _log_marginal(latent: LatentGaussian, hyper: Values) -> Array:
    return latent._laplace(hyper).log_marginal


@eqx.filter_jit
def _report(latent: LatentGaussian, hyper: Values) -> tuple[Array, Array, Array, Array]:
    found = latent._laplace(hyper)
    return found.log_marginal, found.mode.steps, found.mode.decrement, found.eta


@eqx.filter_jit
def _sample_all(latent: LatentGaussian, hyper: Values, keys: Array) -> tuple[Values, Array, Array]:
    reading = latent.reading

    def one(draw: tuple[Values, Array]) -> tuple[Values, Array, Array]:
        hyper, key = draw
        found = latent._laplace(hyper)
        law = found.posterior.law
        first, second = jax.random.split(key)
        u = law.draw(first)
        noise = jnp.sqrt(jnp.maximum(found.weights, 0)) * jax.random.normal(second, found.eta.shape, found.eta.dtype)
        r = found.departure + u - found.posterior.solve(law.adjoint(found.weights * law.forward(u) + noise))
        values = law.values(r)
        trace = trace_at(reading.model, reading.args, reading.kwargs, hyper | values)
        sites = {k: s["value"] for k, s in trace.items() if s["type"] == "deterministic"} | hyper | values
        return sites, jnp.isfinite(found.log_marginal), jnp.all(found.weights >= 0)

    return jax.lax.map(one, (hyper, keys))


@eqx.filter_jit
def _marginals_all(latent: LatentGaussian, hyper: Values, numbers: Array) -> tuple[Values, Values, Array]:
    def one(draw: tuple[Values, Array]) -> tuple[Values, Values, Array]:
        found = latent._laplace(draw[0])
        law = found.posterior.law
        means = law.values(found.departure) | latent.reading.split(latent.reading.trace(draw[0]), found.eta)
        return means, found.posterior.sds(found.departure), jnp.isfinite(found.log_marginal)

    return jax.lax.map(one, (hyper, numbers))
