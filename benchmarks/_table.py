"""The page docs/benchmarks.md and its plots, from benchmarks/results/*.json.

Nothing is measured here and no figure is written by hand: what is stored appears, and what is not is "not measured".

    python benchmarks/_table.py
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from benchmarks._comparison import ahead, number, records, value, verdict
from benchmarks._headline import OURS, PUBLISHED, headline, medians, over_observations, published
from benchmarks._record import MISSING, load

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PAGE, PLOTS = DOCS / "benchmarks.md", DOCS / "_static" / "benchmarks"


# The sections: a table for each group of cases.


class Table(NamedTuple):
    """Cases (a regular expression) and columns, all metrics if none are named.

    A row for each case and method, or, where ``wide``, for each case, with a column for each method and metric.
    """

    cases: str
    columns: tuple = ()
    title: str = ""
    wide: bool = False


SECTIONS = {
    "exact_gaussian": [
        Table(
            ".*",
            (
                "draws",
                "error of the mean",
                "sd over the exact one, mean",
                "smallest ESS",
                "CPU time",
                "CPU time without compilation",
                "smallest ESS per CPU second",
                "smallest ESS per CPU second without compilation",
            ),
        )
    ],
    "whitening": [
        Table("cost.*", title="Cost"),
        Table("known.*", title="Known hyperparameters"),
        Table(
            "unknown.*",
            (
                "CPU time",
                "draws",
                *(f"smallest ESS, {n}" for n in ("range", "scale", "noise", "field")),
                *(f"largest R-hat, {n}" for n in ("range", "scale", "noise", "field")),
            ),
            "Unknown hyperparameters",
        ),
        Table("centering.*", title="Centering", wide=True),
    ],
    "kernels": [
        Table("grid .*", ("evaluations per effective sample",), "As the grid is refined", wide=True),
        Table(
            "deconvolution|elliptic",
            (
                "draws",
                "gradients per draw",
                "smallest ESS",
                "smallest ESS per 1,000 gradients",
                "median ESS per 1,000 gradients",
                "CPU time",
                "smallest ESS per CPU second",
                "smallest ESS per CPU second, sampling alone",
            ),
            "Beside NumPyro, BlackJAX and CUQIpy",
        ),
        Table("elliptic, symmetry", title="Symmetry"),
        Table("overhead.*", title="Overhead"),
    ],
    "two_level": [Table(".*")],
    "sparse_cholesky": [Table(".*")],
    "latent_gaussian": [Table(".*")],
    "restoration": [
        Table("solvers", title="Solvers"),
        Table("cost", title="Cost of a draw"),
        Table("cost, .*", title="Cost of an iteration"),
        Table("coverage", title="Coverage"),
    ],
    "learned_priors": [Table("inpainting.*", title="Inpainting"), Table("density", title="Density")],
    "levy": [Table(".*", ("coverage", "gap", "effective share of draws", "exchanges accepted"), wide=True)],
    "sbibm": [Table(".*")],
    "pinn": [
        Table("training.*", title="Training"),
        Table("reduced", title="Reduced posterior"),
        Table("published.*", title="Published benchmark"),
    ],
    "calibration": [
        Table(".*NUTS fits", title="Beside simuk"),
        Table("batch.*", title="Size of the study"),
        Table(".*exact posteriors.*", title="Exact inference"),
    ],
    "scaling": [
        Table("cells.*", title="Cells"),
        Table("chains.*", title="Chains"),
        Table("devices.*", title="Devices"),
    ],
}
TITLES = {
    "exact_gaussian": "Exact Gaussian posteriors",
    "whitening": "Whitened coordinates",
    "kernels": "Kernels that know the geometry",
    "two_level": "Two-level delayed acceptance",
    "sparse_cholesky": "Sparse Cholesky factorization",
    "latent_gaussian": "Latent Gaussian models",
    "restoration": "Restoration with denoisers",
    "learned_priors": "Learned priors",
    "levy": "Split Gibbs beside exact posteriors",
    "sbibm": "Simulation-based inference",
    "pinn": "Physics-informed networks",
    "calibration": "Simulation-based calibration",
    "scaling": "Scaling",
}


def described(benchmark):
    """What the script says it measures, without how to call it."""
    text = ast.get_docstring(ast.parse((HERE / f"{benchmark}.py").read_text()))
    paragraphs = [
        p for p in text.split("\n\n") if not p.startswith(("    python ", "The peers' interpreter", "The peer's"))
    ]
    return re.sub(r"``(.*?)``", r"`\1`", "\n\n".join(paragraphs)).replace("models.", "models.")


def cells(rows):
    """Markdown of a table, the first row its heading."""
    lines = ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def shortened(names, most=4):
    """A list in words that stays short."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def pivot(found, table):
    """The table, and the notes of its records below."""
    unit = {r["metric"]: r["unit"] for r in found if r["metric"] != MISSING}
    columns = [c for c in table.columns or unit if c in unit]
    name = {c: f"{c}, {unit[c]}" if unit[c] else c for c in columns}
    value = {(r["case"], r["method"], r["metric"]): r["value"] for r in found}
    pairs = list(dict.fromkeys((r["case"], r["method"]) for r in found))
    if table.wide:
        methods = dict.fromkeys(method for _, method in pairs)
        wanted = [(m, c) for m in methods for c in columns if any((case, m, c) in value for case, _ in pairs)]
        rows = [["case", *(m if len(columns) == 1 else f"{m}: {name[c]}" for m, c in wanted)]]
        for case in dict.fromkeys(case for case, _ in pairs):
            keys = [(case, *pair) for pair in wanted]
            rows.append([case, *(number(value[key]) if key in value else "" for key in keys)])
    else:
        several = len({case for case, _ in pairs}) > 1
        rows = [[*(["case"] * several), "method", *name.values()]]
        for case, method in pairs:
            label = [*([case] * several), method]
            if (case, method, MISSING) in value:
                rows.append([*label, "**not measured**", *[""] * (len(columns) - 1)])
            else:
                keys = [(case, method, c) for c in columns]
                rows.append([*label, *(number(value[key]) if key in value else "" for key in keys)])
    notes: dict[str, list[str]] = {}
    for r in found:
        if r["note"]:
            notes.setdefault(r["note"], []).append(r["method"])
    texts = [f"- {shortened(methods)}: {note}." for note, methods in notes.items()]
    return cells(rows) + ("\n\n" + "\n".join(texts) if texts else "")


def machines(benchmark):
    """Where and when, a line for each machine and day; which cases, where there are several."""
    cases: dict[str, list[str]] = {}
    stored = load(benchmark)
    for r in stored["records"]:
        facts = stored["runs"][r["run"]]
        line = f"{facts['date']}: {facts.get('note', '')}"
        if "cpu" in facts:
            threads = "one thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
            line = f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores, {threads} for linear algebra, device "
            line += f"{facts['device']}; jax {facts['jax']}, numpyro {facts['numpyro']}"
        cases.setdefault(line, []).append(r["case"])
    if len(cases) == 1:
        return f"Measured {next(iter(cases))}."
    return "\n".join(f"- Measured {line} ({shortened(names)})." for line, names in cases.items())


def sbibm_table():
    """Medians over observations beside the published ones."""
    methods = list(OURS)
    rows = [["task", *methods, *(f"published {m}" for m in PUBLISHED), "best of ours below the best published by"]]
    for task in dict.fromkeys(task for task, _ in published()):
        ours, theirs = medians(task), [published()[task, m] for m in PUBLISHED]
        counts = {m: len(scores) for m, scores in over_observations(task).items()}
        best = [ours[m] for m in methods if m in ours]
        mine = (f"{ours[m]:.3f} ({counts[m]})" if m in ours else "not measured" for m in methods)
        gain = f"{min(theirs) - min(best):+.3f}" if best else ""
        rows.append([task, *mine, *(f"{x:.3f}" for x in theirs), gain])
    text = "Medians of the C2ST over as many observations as in brackets; the published ones are over ten."
    return f"{text}\n\n{cells(rows)}"


def section(benchmark):
    """A heading, what was measured, where, tables, plots."""
    parts = [f"## {TITLES[benchmark]}", f"`benchmarks/{benchmark}.py`. {described(benchmark)}"]
    if records(benchmark):
        parts.append(machines(benchmark))
    if benchmark == "sbibm":
        parts.append(sbibm_table())
    else:
        for table in SECTIONS[benchmark]:
            found = [r for r in records(benchmark) if re.fullmatch(table.cases, r["case"])]
            if table.title:
                parts.append(f"### {TITLES[benchmark]}: {table.title[0].lower()}{table.title[1:]}")
            parts.append(pivot(found, table) if found else "**Not measured.**")
    parts += [
        f"![{text}](_static/benchmarks/{name})" for name, (text, where, _) in FIGURES.items() if where == benchmark
    ]
    return "\n\n".join(parts)


def page():
    """The whole page."""
    rows = [["what", "asked", "ours", "peers", "verdict", "accuracy"]]
    for row in headline():
        sides = ["<br>".join(f"{number(x)} {name}" for name, x in side.items()) for side in (row.ours, row.peers)]
        rows.append([row.what, row.asked, *sides, verdict(row), row.accuracy])
    parts = [
        "<!-- Made by `make bench-page` from benchmarks/results; do not edit. -->",
        "# Benchmarks",
        "A row for each comparison, with the best of the peers that are as accurate; below, a section for each script. "
        "`make bench` runs the scripts, peers in environments of their own where versions conflict, and "
        "`make bench-page` makes this page of what they stored. Seconds are CPU seconds of the process unless it says "
        'wall. ESS is the bulk effective sample size. "Not measured" means just that. The machines are small and '
        "shared with other work, and a row is one run: a factor below 1.3 is no difference.",
        cells(rows),
        "![How many times ahead of the best peer each row is](_static/benchmarks/headline.png)",
        "Not run at all: setu-sbi; DeepXDE with another backend than JAX; anything on a GPU.",
        *(section(benchmark) for benchmark in SECTIONS),
    ]
    return "\n\n".join(parts) + "\n"


# Plots, where they tell more than a table.


def plot_headline(axes):
    """Factors over the best peer, by row."""
    found = [(row.what.split(":")[0], ahead(row)) for row in headline() if row.difference is None]
    found = [(what, *both) for what, both in found if both is not None][::-1]
    for y, (_, factor, name) in enumerate(found):
        axes.plot([1, factor], [y, y], color="0.75", zorder=1)
        axes.plot(factor, y, "o", color="tab:blue" if factor >= 1 else "tab:red")
        axes.annotate(f"{factor:.3g}  {name}", (max(factor, 1), y), (7, 3), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(found)), [what for what, *_ in found], fontsize=8)
    axes.axvline(1, color="0.4", lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(0.3, 1000)
    axes.set_xlabel("times ahead of the best peer")


def plot_grids(axes):
    """Evaluations per effective sample against the grid."""
    found = [r for r in records("kernels") if r["metric"] == "evaluations per effective sample"]
    for name in dict.fromkeys(r["method"] for r in found):
        sizes, values = zip(
            *((int(r["case"].split()[1]), r["value"]) for r in found if r["method"] == name), strict=True
        )
        label = f"{name} ({values[-1] / values[0]:.2f})"
        axes.loglog(sizes, values, "--s" if name == "MALA" else "-o", label=label)
    axes.set_xticks(sizes, [f"{n}²" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("grid (in brackets: last over first)")
    axes.set_ylabel("evaluations per effective sample")
    axes.legend(fontsize=8, ncols=2, loc="center", bbox_to_anchor=(0.5, 0.32))


def plot_batch(axes):
    """Seconds per data set against the number of data sets."""
    found = [r for r in records("calibration") if r["case"].startswith("batch of")]
    sizes, values = zip(*((int(r["case"].split()[-1]), r["value"]) for r in found), strict=True)
    axes.loglog(sizes, values, "-o")
    peer = value("calibration", "200 NUTS fits", "simuk.SBC", "wall time") / 200
    axes.axhline(peer, ls="--", color="tab:red")
    axes.annotate("simuk", (sizes[0], peer), (0, -12), textcoords="offset points", color="tab:red")
    axes.set_xticks(sizes, sizes)
    axes.minorticks_off()
    axes.set_xlabel("data sets in the study")
    axes.set_ylabel("wall seconds a data set")


def plot_scaling(axes):
    """Milliseconds of a gradient against the number of cells, and beside it those of chains and devices."""

    def of(kind, metric):
        found = [r for r in records("scaling") if r["case"].startswith(f"{kind} ") and r["metric"] == metric]
        return zip(*((int(r["case"].split()[-1]), r["value"]) for r in found), strict=True)

    sides, values = of("cells", "gradient")
    times = [n**2 / 64**2 for n in sides]
    axes.loglog(times, values, "-o", label="one chain, against cells / 4,096")
    axes.loglog(times, [values[1] * n for n in times], ":", color="0.6")
    axes.loglog(*of("chains", "gradient of all"), "-s", label="vectorized chains of 4,096 cells")
    axes.loglog(*of("devices", "gradient of all"), "-^", label="eight such chains, against devices")
    axes.set_xlabel("cells / 4,096, chains, or devices (dotted: proportional)")
    axes.set_ylabel("wall ms of a value and gradient of all")
    axes.legend(fontsize=8)


FIGURES = {
    "headline.png": ("", "", plot_headline),
    "kernels_grids.png": ("Evaluations per effective sample against the grid", "kernels", plot_grids),
    "scaling.png": ("Milliseconds of a gradient by cells, chains and devices", "scaling", plot_scaling),
    "calibration_batch.png": ("Seconds a data set against the size of the study", "calibration", plot_batch),
}


def main():
    """Write the page and the plots."""
    import matplotlib.pyplot as plt

    PLOTS.mkdir(parents=True, exist_ok=True)
    for name, (_, _, draw) in FIGURES.items():
        figure, axes = plt.subplots(figsize=(8, 5) if name == "headline.png" else (5.5, 4))
        draw(axes)
        figure.tight_layout()
        figure.savefig(PLOTS / name, dpi=150)
        plt.close(figure)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
