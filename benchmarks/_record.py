"""Results of the benchmarks: a flat record for each measured number, in ``benchmarks/results/NAME.json``.

A record has ``case`` (the problem), ``method``, ``package`` (name and version), ``metric``, ``value``, ``unit``,
``note`` and ``run``, the key of the facts about its machine and day in the file's ``runs``. Compilation is a metric of
its own. A value that could not be had is null, and its note says why. Only the standard library is needed, so that
peers in environments of their own use it, too.
"""

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MISSING = "missing"  # metric of a method that could not be run


def package(name: str) -> str:
    """Name and version of a package of this environment."""
    return f"{name} {metadata.version(name)}"


def machine(threads: int | None = None) -> dict:
    """Facts of this machine, environment and day; ``threads`` for linear algebra, default all cores."""
    import jax

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE)
        cpu = names[0] if names else cpu
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS, capture_output=True, text=True
    ).stdout.strip()
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpyro", "numpyro_inverse")}
    return {
        "date": date.today().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads or os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **versions,
        "commit": commit or None,
    }


def measured(case: str, method: str, package: str, values: dict, note: str = "") -> list[dict]:
    """Records of one method on one case.

    Args:
        values: numbers by metric, with the unit in brackets: ``{"CPU time [s]": 1.9, "smallest ESS": 911}``. ``None``
            is a number that could not be had; ``note`` must then say why.
        package: as of :func:`package`.
        note: accuracy and conditions that the metrics do not say.

    Raises:
        ValueError: a value is not finite, or is None without a note.
    """
    records = []
    for name, value in values.items():
        metric, unit = re.fullmatch(r"(.*?)(?: \[(.*)\])?", name).groups()
        if value is None and not note:
            raise ValueError(f"note: {case}, {method}: {metric} is None, and nothing says why.")
        value = value if value is None or isinstance(value, bool | int) else float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"values: {case}, {method}: {metric} is {value}. Give None, and say why in note.")
        records.append(
            {
                "case": case,
                "method": method,
                "package": package,
                "metric": metric,
                "value": value,
                "unit": unit or "",
                "note": note,
            }
        )
    return records


def missing(case: str, method: str, package: str, why: object) -> list[dict]:
    """The record of a method that could not be run."""
    return measured(case, method, package, {MISSING: None}, note=" ".join(str(why).split())[-300:])


def load(benchmark: str) -> dict:
    """``runs`` and ``records`` of a benchmark; empty where nothing is stored."""
    path = RESULTS / f"{benchmark}.json"
    return json.loads(path.read_text()) if path.exists() else {"runs": {}, "records": []}


def keep(benchmark: str, records: list[dict], facts: dict) -> None:
    """Stores records with the ``facts`` of :func:`machine`.

    What is stored for the same case and method goes, all else stays: what is run again replaces itself alone. The file
    is replaced in one step.
    """
    found = load(benchmark)
    run = f"{facts['date']} {hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:6]}"
    new = {(record["case"], record["method"]) for record in records}
    stored = [record for record in found["records"] if (record["case"], record["method"]) not in new]
    stored += [record | {"run": run} for record in records]
    used = {record["run"] for record in stored}
    runs = {name: known for name, known in (found["runs"] | {run: facts}).items() if name in used}
    rows = ",\n".join(json.dumps(record, ensure_ascii=False, allow_nan=False) for record in stored)
    text = f'{{"runs": {json.dumps(runs, indent=1, ensure_ascii=False)},\n"records": [\n{rows}\n]}}\n'
    RESULTS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, suffix=".part", delete=False) as part:
        part.write(text)
    os.chmod(part.name, 0o644)
    os.replace(part.name, RESULTS / f"{benchmark}.json")
