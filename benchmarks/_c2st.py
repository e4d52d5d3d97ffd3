"""The score of sbibm.py, in NumPy and scikit-learn alone, shared with the peers' environment."""

import numpy as np


def c2st(draws, reference, seed=1):
    """The benchmark's accuracy of telling ``draws`` from ``reference``; in single precision, as there.

    On one thread: its matrices are too small for two, which cost twice the CPU time and save none.
    """
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    mean, spread = reference.mean(0), reference.std(0, ddof=1)
    points = np.concatenate([(draws - mean) / spread, (reference - mean) / spread]).astype(np.float32)
    labels = np.concatenate([np.zeros(len(draws)), np.ones(len(reference))])
    width = 10 * points.shape[1]
    classifier = MLPClassifier(
        activation="relu", hidden_layer_sizes=(width, width), max_iter=10_000, solver="adam", random_state=seed
    )
    folds = KFold(n_splits=5, shuffle=True, random_state=seed)
    with threadpool_limits(1):
        return float(np.mean(cross_val_score(classifier, points, labels, cv=folds, scoring="accuracy")))
