"""A peer in an environment of its own, which reads a problem's arrays and writes rows of results."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).absolute().parent


def rows_of(peer: str, python: str, script: str, arrays: dict, *arguments: str) -> list[dict]:
    """What ``python script *arguments problem.npz rows.json`` writes.

    It runs in a folder that is thrown away, for some peers write logs to where they are. One that fails is told, and
    the rows that it had written by then count.
    """
    with tempfile.TemporaryDirectory() as folder:
        problem, rows = Path(folder, "problem.npz"), Path(folder, "rows.json")
        np.savez(problem, **arrays)
        command = [Path(python).absolute(), HERE / script, *arguments, problem, rows]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or str(error)
            print(f"PEER MISSING: {peer}: {why[-500:]} (benchmarks/peers-*.txt)", file=sys.stderr)
        return json.loads(rows.read_text()) if rows.exists() else []
