"""Hierarchical linear-Gaussian models: hyperparameters by any kernel on the log evidence, the field drawn exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int, UInt
from numpyro import handlers
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import constrain_fn
from numpyro.util import is_prng_key

from numpyro_inverse._checks import check_callable, check_positive_number, describe, is_traced
from numpyro_inverse._fingerprint import fingerprint
from numpyro_inverse._model import Site, abstract_trace, latent_sites, trace_at
from numpyro_inverse.distributions._reparametrized import domain_of, has_amplitudes
from numpyro_inverse.infer.exact._affine import AffineModel
from numpyro_inverse.infer.exact._exact_gaussian import DENSE_LIMIT
from numpyro_inverse.infer.exact._gaussian_posterior import (
    DiagonalRoot,
    Factored,
    Root,
    exact_diagonal,
    gaussian_posterior,
    quadratic_log_evidence,
)
from numpyro_inverse.infer.exact._requirements import improper_at_rest
from numpyro_inverse.infer.exact._still import Still
from numpyro_inverse.infer.whitening import LATENT, whiten

HERE = "ExactGibbs"


STALE = f"{HERE}: this state was made with other model arguments; start a new run instead of continuing it."


class ExactGibbsState(NamedTuple):
    """State of :class:`ExactGibbs`; every field and property is available as an extra field.

    Attributes:
        i: iteration, warm-up included.
        z: hyperparameters in unconstrained space, and the marginalized sites, fields as white noise.
        hyper: state of the kernel that moves the hyperparameters.
        error: bound of any linear functional's error of the field's draw, in its posterior standard deviations.
        template: how the field is drawn.
        fingerprint: of the model's arguments.
        rng_key: key of the next draw.
    """

    i: Int[Array, ""]
    z: dict[str, Array]
    hyper: Any
    error: Float[Array, ""]
    template: Factored
    fingerprint: UInt[Array, ""]
    rng_key: Array

    @property
    def accept_prob(self) -> Array:
        """Of the hyperparameters' last move."""
        return self.hyper.accept_prob

    @property
    def diverging(self) -> Array:
        """Whether the hyperparameters' last move diverged."""
        return self.hyper.diverging

    @property
    def num_steps(self) -> Array:
        """Evaluations of the log evidence and its gradient in the last move."""
        return self.hyper.num_steps if hasattr(self.hyper, "num_steps") else self.hyper.num_grads

    @property
    def potential_energy(self) -> Array:
        """Minus the log density of the hyperparameters, the field marginalized."""
        return self.hyper.potential_energy

    @property
    def step_size(self) -> Array:
        """Of the hyperparameters' last move."""
        return self.hyper.step_size if hasattr(self.hyper, "step_size") else self.hyper.adapt_state.step_size


class ExactGibbs(MCMCKernel):
    r"""Collapsed Gibbs sampling of a hierarchical linear-Gaussian model, without a Markov chain for the field.

    With hyperparameters :math:`\theta` and a Gaussian field :math:`u` under Gaussian data with an affine mean, each
    iteration is

    .. math:: \theta \sim K(\theta, \cdot) \text{ for } p(\theta \mid y) \propto p(\theta) \int p(y \mid u, \theta)\,
              p(u \mid \theta)\, du, \qquad u \sim p(u \mid \theta, y),

    with K one transition of ``kernel`` and the integral in closed form, so that the chain mixes as the hyperparameters
    alone do: no funnel, whatever the size of the field or the signal-to-noise ratio. In the white coordinates of
    :class:`ExactGaussian`,

    .. math:: \log p(y \mid \theta) = -\tfrac12 \bigl(\|r_0 - \tilde A \mu\|^2 + \|\mu\|^2 + \log|I + \tilde A^T
              \tilde A| + m \log 2 \pi\bigr) - \log|S|,

    all of them functions of :math:`\theta`. Where :math:`H = I + \tilde A^T \tilde A` is diagonal (a field under a
    convolution with its grid's boundary) it costs three products with the forward map, else a QR factorization of
    at most 2048 columns, one for each latent number or each datum, whichever are fewer; that the diagonal is one is
    verified at every draw.

    >>> mcmc = MCMC(ExactGibbs(model), num_warmup=300, num_samples=1000)
    >>> mcmc.run(jax.random.key(0), data=y, extra_fields=("accept_prob", "num_steps", "error"))

    Extra fields: ``accept_prob``, ``num_steps``, ``step_size``, ``potential_energy`` and ``diverging`` of the
    hyperparameters' kernel, ``hyper.name`` for any other of its fields, and ``error`` of the field's draw.

    Args:
        model: a NumPyro model. Given the other latents, the marginalized sites are as :class:`ExactGaussian` wants its
            latents; locations, scales and the forward map may depend on the others in any differentiable way.
        kernel: from the marginal model to a kernel for the hyperparameters: ``NUTS``, ``MALA``, a ``partial`` of them.
            Where none is left (all are conditioned, or other blocks' of ``Gibbs``) it is not used.
        sites: names of the sites to marginalize; default: the fields, or a sequence of coefficients.
        tolerance: largest ``error`` of a draw of the field. Default: 1e-2 in single, 1e-6 in double precision.

    Raises:
        ValueError: at the start of a run, naming the site: no field and no ``sites``; one that the model does not have;
            a discrete hyperparameter; what :class:`ExactGaussian` refuses at the first
            hyperparameters; more than 2048 latent numbers and data without a diagonal :math:`H`.
        RuntimeError: a draw of the field misses ``tolerance``, or a state made with other model arguments is
            continued; raised inside compiled code as for :class:`ExactGaussian`.

    References:
        Liu, J. Am. Stat. Assoc. 89 (1994) 958-966; Rue & Held, Gaussian Markov Random Fields (2005), ch. 4; Fox &
        Norton, SIAM/ASA J. Uncertain. Quantif. 4 (2016) 1191-1218.
    """

    needs_density = True  # a factor that is known by its gradient alone does not make a Gaussian law

    def __init__(
        self,
        model: Callable,
        kernel: Callable[[Callable], MCMCKernel] = NUTS,
        *,
        sites: Sequence[str] | None = None,
        tolerance: float | None = None,
    ):
        check_callable(HERE, "model", model, "a NumPyro model")
        check_callable(HERE, "kernel", kernel, "what makes a kernel from a model, such as NUTS")
        if isinstance(sites, str):
            raise ValueError(f"{HERE}: `sites` must be a sequence of names; got {sites!r}. Write [{sites!r}].")
        if sites is not None and not (isinstance(sites, Sequence) and all(isinstance(name, str) for name in sites)):
            raise TypeError(f"{HERE}: `sites` must be a sequence of names; got {describe(sites)}.")
        if tolerance is not None:
            check_positive_number(HERE, "tolerance", tolerance)
        self._model = model
        self._make_kernel = kernel
        self._sites = sites
        self._tolerance = tolerance
        self._kernel: MCMCKernel | None = None
        self._names: tuple[str, ...] = ()
        self._sample_fn: Callable | None = None

    @property
    def model(self) -> Callable:
        """The model as given; fields are whitened inside."""
        return self._model

    @property
    def sample_field(self) -> str:
        """``"z"``."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields that ``MCMC`` always collects."""
        return ("z", "diverging")

    @property
    def tolerance(self) -> float:
        """Largest error of a draw, in posterior standard deviations."""
        if self._tolerance is not None:
            return self._tolerance
        return 1e-6 if jax.config.jax_enable_x64 else 1e-2

    def get_diagnostics_str(self, state: ExactGibbsState) -> str:
        """What the progress bar shows."""
        return f"{int(state.num_steps)} steps, step size {float(state.step_size):.2e}"

    def _given(self, hyper: dict[str, Array], args: tuple, kwargs: Any) -> AffineModel:
        """The linear-Gaussian model at fixed hyperparameters, whose own densities are left out."""
        fixed = handlers.substitute(whiten(self._model), data=hyper)
        return AffineModel(handlers.block(fixed, hide=list(hyper)), args, kwargs, HERE)

    def _marginal_model(self, names: tuple, hyper: tuple, others: list[str], template: Factored) -> Callable:
        """The hyperparameters ``hyper`` and the log evidence as a NumPyro model, all ``others`` hidden."""

        def at_rest(site: Site) -> Any:
            return site["fn"].mean if site["type"] == "sample" and site["name"] in names else None

        def marginal(*args, **kwargs):
            whole = handlers.substitute(whiten(self._model), substitute_fn=at_rest)
            shown = handlers.block(whole, hide=others)  # by name: NumPyro adds sites with the Jacobians
            with handlers.trace() as trace:
                shown(*args, **kwargs)
            values = {name: trace[name]["value"] for name in hyper}
            with handlers.block():
                model = self._given(values, args, kwargs)
                fixed = self._given(jax.lax.stop_gradient(values), args, kwargs)
                value = log_evidence(model, fixed, template)
            numpyro.factor("log_evidence", value)

        return marginal

    def _inspect(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Array], list[str]]:
        """The names of the marginalized sites, whitened; hyperparameters from the prior; all other names."""
        latent = latent_sites(abstract_trace(self._model, args, kwargs))
        white = trace_at(improper_at_rest(whiten(self._model)), args, kwargs)
        if not latent:
            raise ValueError(f"{HERE}: the model has no latent site; there is nothing to sample.")
        chosen = self._sites
        if chosen is None:
            chosen = [k for k, s in latent.items() if domain_of(s["fn"]) is not None]
            chosen = chosen or [k for k, s in latent.items() if has_amplitudes(s["fn"])]
            if not chosen:
                raise ValueError(f"{HERE}: the model has no field; name the sites to marginalize in `sites`.")
        unknown = sorted(set(chosen) - set(latent))
        if unknown or not chosen:
            found = ", ".join(map(repr, latent))
            raise ValueError(f"{HERE}: `sites` has {unknown[0]!r}; latent are {found}." if unknown else
                             f"{HERE}: `sites` is empty; latent are {found}.")  # fmt: skip
        names = tuple(k if k in white and white[k]["type"] == "sample" else k + LATENT for k in chosen)
        hyper = {k: s for k, s in latent_sites(white).items() if k not in names}
        for name, site in hyper.items():
            if site["fn"].support.is_discrete:
                raise ValueError(f"{HERE}: hyperparameter {name!r} is discrete; sum it out in the model.")
        return names, {k: s["value"] for k, s in hyper.items()}, [k for k in white if k not in hyper]

    def _template(self, hyper: dict[str, Array], args: tuple, kwargs: Any) -> Factored:
        """How the field is drawn and the evidence evaluated: a diagonal or a dense root."""
        model = self._given(hyper, args, kwargs)
        found = gaussian_posterior(model, self.tolerance, 1, DENSE_LIMIT, is_traced(args, kwargs))
        if not isinstance(found, Factored):
            raise ValueError(
                f"{HERE}: the determinant in the evidence needs a dense factorization of {model.size} latent numbers, "
                f"or of the data; the limit is {DENSE_LIMIT}. Use a coarser grid, or let prior and operator share a "
                "transform (a field under a convolution with its grid's boundary), or NUTS on `whiten(model)`."
            )
        return found

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> ExactGibbsState:
        """Analyse the model and its data, and start the hyperparameters. Raises as the class says."""
        kwargs = model_kwargs or {}
        with nullcontext() if is_traced(model_args, kwargs) else jax.core.eval_context():
            names, hyper, others = self._inspect(model_args, kwargs)
            template = self._template(hyper, model_args, kwargs)
        self._names = names
        marginal = self._marginal_model(names, tuple(hyper), others, template)
        self._kernel = self._make_kernel(marginal) if hyper else Still()
        single = is_prng_key(rng_key)
        keys = jax.random.split(rng_key) if single else jnp.swapaxes(jax.vmap(jax.random.split)(rng_key), 0, 1)
        if isinstance(init_params, dict):
            init_params = {k: v for k, v in init_params.items() if k not in names} or None
        state = self._kernel.init(keys[0], num_warmup, init_params, model_args, kwargs)
        self._sample_fn = self.sample
        chains = () if single else rng_key.shape[:1]

        def begin(z, key):
            return self._draw(z, template, key, model_args, kwargs)

        z = getattr(state, self._kernel.sample_field)
        noise, error, _ = jax.jit(begin if single else jax.vmap(begin))(z, keys[1])
        return ExactGibbsState(
            i=jnp.zeros(chains, int),
            z=dict(z) | noise,
            hyper=state,
            error=error,
            template=template,
            fingerprint=fingerprint((model_args, kwargs)),
            rng_key=keys[1],
        )

    def _draw(self, z: Any, template: Factored, key: Array, args: tuple, kwargs: Any) -> tuple:
        """A draw of the field at the hyperparameters in ``z``, its error, and the next key."""
        assert self._kernel is not None
        key_draw, rng_key = jax.random.split(key)
        model = self._given(self._kernel.get_constrain_fn(args, kwargs)(z), args, kwargs)
        affine = model.affine()
        found = template.refreshed(affine).draw(affine, key_draw)
        message = (
            f"{HERE}: a draw of the field is not accurate to `tolerance` = {self.tolerance:.1e} posterior standard "
            "deviations: the signal-to-noise ratio is too large for this precision, or the Hessian, diagonal at first, "
            "is not diagonal at other hyperparameters. Use `jax.enable_x64`, or a larger `tolerance`."
        )
        noise = eqx.error_if(found.noise, ~(found.error <= self.tolerance), message)
        return model.latents(noise), found.error, rng_key

    def sample(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> ExactGibbsState:
        """Move the hyperparameters, then draw the field."""
        if self._kernel is None:
            raise RuntimeError(f"{HERE}: call `init` first.")
        hyper = self._kernel.sample(state.hyper, model_args, model_kwargs or {})
        z = getattr(hyper, self._kernel.sample_field)
        single = is_prng_key(state.rng_key)
        draw = partial(self._draw, args=model_args, kwargs=model_kwargs or {})
        if single:
            noise, error, rng_key = draw(z, state.template, state.rng_key)
        else:
            shared = jax.tree.map(lambda _: 0, state.template)
            batched = jax.tree.leaves(state.template)[0].ndim > 1
            axes = (0, shared if batched else None, 0)
            noise, error, rng_key = jax.vmap(draw, in_axes=axes)(z, state.template, state.rng_key)
        stale = fingerprint((model_args, model_kwargs or {})) != state.fingerprint
        error = eqx.error_if(error, stale, STALE)
        return state._replace(i=state.i + 1, z=dict(z) | noise, hyper=hyper, error=error, rng_key=rng_key)

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> ExactGibbsState:
        """The state for other model arguments, as Gibbs sampling needs it; how the field is drawn stays."""
        if self._kernel is None:
            raise RuntimeError(f"{HERE}: call `init` first.")
        hyper = self._kernel.refresh(state.hyper, model_args, model_kwargs or {})
        return state._replace(hyper=hyper, fingerprint=fingerprint((model_args, model_kwargs or {})))

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """From ``z`` to constrained values and deterministic sites, the fields among them."""
        model = handlers.seed(whiten(self._model), jax.random.key(0))
        return partial(constrain_fn, model, model_args, model_kwargs or {}, return_deterministic=True)

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """From unconstrained hyperparameters to constrained ones; the other sites are real."""

        def constrain(z):
            assert self._kernel is not None
            noise = {k: z[k] for k in self._names if k in z}
            hyper = {k: v for k, v in z.items() if k not in noise}
            return self._kernel.get_constrain_fn(model_args, model_kwargs)(hyper) | noise

        return constrain

    def wrap_model(self, wrapper: Callable) -> ExactGibbs:
        """A copy for the wrapped model."""
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._kernel, kernel._sample_fn = None, None
        return kernel

    def __getstate__(self) -> dict[str, Any]:
        """Without what was built from the model, which may not pickle."""
        return self.__dict__ | {"_kernel": None, "_sample_fn": None}


def log_evidence(model: AffineModel, fixed: AffineModel, template: Factored) -> Float[Array, ""]:
    """Log density of the data of a linear-Gaussian model, with its derivative in what the model depends on.

    Args:
        model: the model, at hyperparameters.
        fixed: the same without derivatives: the derivative of the quadratic form is that at a fixed posterior mean.
        template: tells whether the Hessian is diagonal.
    """
    affine, held = model.affine(), fixed.affine()
    root: Root
    if isinstance(template.root, DiagonalRoot):
        held_diagonal = exact_diagonal(held, 1 / template.root.scale**2, jax.random.key(1))
        root = DiagonalRoot(1 / jnp.sqrt(exact_diagonal(affine, held_diagonal, jax.random.key(1))))
        held_root: Root = DiagonalRoot(1 / jnp.sqrt(held_diagonal))
    else:
        root, held_root = template.root.refreshed(affine), template.root.refreshed(held)
    mean = Factored(held, held_root, jax.random.key(2)).mean
    return quadratic_log_evidence(affine, mean, root.log_det) + model.log_normalizer()
