"""CPU time of a step, for us and for the peers; the standard library alone."""

import time


def milliseconds(run, few=10, many=50):
    """Of one step: the difference between ``run(many)`` and ``run(few)``, each called once before."""
    taken = {}
    for count in (few, many):
        run(count)
        start = time.process_time()
        run(count)
        taken[count] = time.process_time() - start
    return 1e3 * (taken[many] - taken[few]) / (many - few)
