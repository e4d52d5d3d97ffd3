"""The code in the documents runs: block after block of a page, in reduced size."""

from pathlib import Path

import pytest

from tests.docs.running import blocks, run

ROOT = Path(__file__).parents[2]
# From a cold cache, ten seconds or more each.
SLOW = {"calibration.md", "denoisers.md", "denoising_posteriors.md", "exact_gaussian.md", "generator_priors.md"}
SLOW |= {"learned_priors.md", "long_runs.md", "physics_informed_networks.md", "prediction.md", "reference_problems.md"}
SLOW |= {"results.md", "simulation_based_inference.md", "solvers.md", "surrogates.md", "symmetries.md"}
SLOW |= {"function_space_priors.md", "index.md", "latent_gaussian.md", "meshes.md", "sparse_cholesky.md", "tutorial.md"}
SLOW |= {
    "denoising_priors.md",
    "for_users_of.md",
    "kernels.md",
    "many_devices.md",
    "networks_for_simulations.md",
    "whitening.md",
}


def pages():
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        if list(blocks(path.read_text())):
            yield pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW))


@pytest.mark.parametrize("page", list(pages()))
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        run(block, namespace, str(page))
