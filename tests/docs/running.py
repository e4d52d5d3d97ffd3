"""Running the code of documents and docstrings, in small."""

import ast
import re

# Arguments that decide how long a run takes, and what they are cut down to.
AT_MOST = {
    "block_size": 4,
    "max_epochs": 1,
    "num_chains": 2,
    "num_datasets": 20,
    "num_samples": 8,
    "num_simulations": 512,
    "num_warmup": 4,
    "thinning": 1,
}
# Arguments that are given to calls without them.
ADDED = {
    "MCMC": {"progress_bar": False},
    "CouplingFlow": {"layers": 1, "width": 8},
    "fit_density": {"progress_bar": False, "batch_size": 64, "max_epochs": 1},
    "fit_flow": {"progress_bar": False, "batch_size": 16, "max_epochs": 1},
    "fit_gan": {"progress_bar": False, "batch_size": 16, "max_epochs": 1},
    "fit_vae": {"progress_bar": False, "batch_size": 16},
    "fit_surrogate": {"num_simulations": 512, "width": 8, "depth": 1, "progress_bar": False},
    "manifold_distance": {"num_starts": 2, "num_steps": 4},
    "prior_predictive_check": {"num_draws": 16, "num_permutations": 19},
}


class Smaller(ast.NodeTransformer):
    def visit_Call(self, node):
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        given = {keyword.arg for keyword in node.keywords}
        for added, value in ADDED.get(name, {}).items():
            if added not in given:
                node.keywords.append(ast.keyword(added, ast.Constant(value)))
        return ast.fix_missing_locations(node)

    def visit_keyword(self, node):
        self.generic_visit(node)
        if node.arg in AT_MOST and isinstance(node.value, ast.Constant):
            node.value = ast.copy_location(ast.Constant(min(node.value.value, AT_MOST[node.arg])), node.value)
        return node


def smaller(source: str) -> ast.Module:
    return Smaller().visit(ast.parse(source))


def provide(tree: ast.Module, namespace: dict) -> None:
    """Put into ``namespace`` what the code uses and does not make."""
    from tests.docs import world  # takes seconds: not at collection

    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    for name in {node.id for node in names} - made - set(namespace):
        if world.knows(name):
            namespace[name] = world.the(name)


SMALLER = re.compile(r"^<!-- smaller: (.*?) is (.*?) -->$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$|^<!-- run:\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.*-->\n$")


def blocks(text: str):
    """The blocks of code of a Markdown page, cut down, and those in comments (``<!-- run: ... -->``), as they are.

    What a comment ``<!-- smaller: this is that -->`` says is replaced in all of the page. A block is left out that
    stands right below a comment ``<!-- not run: reason -->``.
    """
    for this, that in SMALLER.findall(text):
        text = text.replace(this, that)
    for found in BLOCK.finditer(text):
        if not NOT_RUN.search(text[: found.start()]):
            shown, hidden = found.groups()
            tree = ast.parse(hidden) if shown is None else smaller(shown)
            yield ast.increment_lineno(tree, text.count("\n", 0, found.start()) + 1)


def run(tree: ast.Module, namespace: dict, file: str) -> None:
    provide(tree, namespace)
    exec(compile(tree, file, "exec"), namespace)
