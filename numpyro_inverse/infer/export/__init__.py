"""What becomes of draws: an ArviZ tree with physical coordinates, predictions, a store on disk."""

from numpyro_inverse.infer.export._arviz import to_arviz as to_arviz
from numpyro_inverse.infer.export._orbit_diagnostics import OrbitDiagnostics as OrbitDiagnostics
from numpyro_inverse.infer.export._orbit_diagnostics import orbit_diagnostics as orbit_diagnostics
from numpyro_inverse.infer.export._predict import predict as predict
from numpyro_inverse.infer.export._predict_data import predict_data as predict_data
from numpyro_inverse.infer.export._read_run import read_run as read_run
from numpyro_inverse.infer.export._run_to_disk import run_to_disk as run_to_disk
