"""The examples in docstrings run, in reduced size; what an example says it prints is what it prints."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.docs.running import provide, run, smaller

ROOT = Path(__file__).parents[2]


# What an example's names are, where the world has others.
KNOWN = """
from tests.docs import world
model = numpyro.handlers.condition(world.the("model"), data={"range": 0.3, "scale": 1.0, "noise": 0.1})
"""
FRESH = "mcmc = MCMC(NUTS(model), num_warmup=4, num_samples=8, progress_bar=False)"
SETUP = {
    "ComplexNormal": "A, u, y = 1j * jnp.eye(3), jnp.ones(3), jnp.ones(3) + 0j",
    "ContextEmbedding": """
import equinox as eqx
from numpyro_inverse import distributions
network = eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(1024, 4, key=key)])
images, parameters = np.random.default_rng(0).normal(size=(64, 32, 32)), np.random.default_rng(1).normal(size=(64, 3))
observed = images[0]
""",
    "ExactGaussian": KNOWN,
    "compare": KNOWN
    + """
from numpyro_inverse.calibration import exact
mcmc = {"field": np.random.default_rng(0).normal(size=(100, 8, 8))}
""",
    "Simulator": "from numpyro.distributions import constraints",
    "VectorOf": "from numpyro.distributions import constraints",
    "expected_patch_log_likelihood": "from numpyro_inverse.distributions import Flow",
    "field": "from numpyro_inverse import to_arviz",
    "fit_gan": """
import equinox as eqx
generator, critic = eqx.nn.Linear(8, 2, key=key), eqx.nn.Linear(2, "scalar", key=key)
rows = np.random.default_rng(0).normal(size=(64, 2))
""",
    "fit_module": """
import equinox as eqx
network, x, y = eqx.nn.Linear(2, 1, key=key), np.ones((256, 2)), np.ones((256, 1))
""",
    "fit_vae": """
vae = nn.VAE.for_images((8, 8), 2, width=4, key=key)
images = np.random.default_rng(0).integers(0, 256, (64, 8, 8), np.uint8)
""",
    "prior_predictive_check": """
flow = dist.Normal(0, 1).expand([8, 8]).to_event(2)
test_images = np.asarray(flow.sample(key, (24,)))
""",
    "run_to_disk": FRESH,
    "to_arviz": FRESH,
}

# From a cold cache, four seconds or more each.
SLOW = {"ExactGibbs", "MixtureAutoregressive", "NLE", "NPE", "NRE", "SplitGibbs", "compare", "fit_vae"}
SLOW |= {"ContextEmbedding", "ExactGaussian", "fit_coordinates", "nuts_settings", "suggest_step_size", "to_arviz"}
SLOW |= {
    "Ensemble",
    "GradientStepDenoiser",
    "IncrementsDenoiser",
    "draws",
    "field",
    "fit_gan",
    "point_estimate",
    "predict",
    "predict_data",
    "restrict_noise",
    "twisted_smc",
    "whiten",
}


def examples():
    """The docstrings with examples, found without importing anything."""
    for path in sorted(ROOT.glob("numpyro_inverse/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node)
                if docstring and ">>> " in docstring:
                    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    name = getattr(node, "name", "")
                    marks = [pytest.mark.slow] * (name in SLOW)
                    id = f"{module.split('.')[-1]}.{name}"
                    yield pytest.param(module, docstring, SETUP.get(name, ""), id=id, marks=marks)


class Told(doctest.OutputChecker):
    """Compares what is printed where the example says something."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.parametrize(("module", "docstring", "setup"), list(examples()))
def test_the_examples_of_a_docstring_run(module, docstring, setup, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = ".".join(module.split(".")[:2])
    names = vars(importlib.import_module(package)) | vars(importlib.import_module(module))
    test = doctest.DocTestParser().get_doctest(docstring, names, module, None, 0)
    run(ast.parse(setup), test.globs, module)
    for example in test.examples:
        tree = smaller(example.source)
        example.source = ast.unparse(tree) + "\n"
        if doctest.SKIP not in example.options:
            provide(tree, test.globs)
    runner = doctest.DocTestRunner(Told(), verbose=False, optionflags=doctest.ELLIPSIS)
    report = []
    assert runner.run(test, out=report.append).failed == 0, "".join(report)


def test_an_example_that_is_skipped_says_why():
    for param in examples():
        if "+SKIP" in param.values[1]:
            assert re.search(r">>> # not run: \S", param.values[1]), param.id
