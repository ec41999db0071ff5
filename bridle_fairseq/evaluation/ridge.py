"""Ridge regression of classes on features, in float64: one eigendecomposition serves every regularization.

A row's target is a vector of 0 and 1. The intercept is not regularized. Regularizations are relative to the mean
eigenvalue of the matrix that is decomposed, so the same values suit any number of rows and features.

NumPy's LAPACK, not PyTorch's: on one core it is three times as fast here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# half decades from 1e-5 to 1e3
REGULARIZATIONS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-10, 7))


@dataclass(frozen=True)
class LinearScores:
    """A linear classifier."""

    weight: np.ndarray  # d x C
    offset: np.ndarray  # C

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Class scores of features: n x d -> n x C."""
        return features.astype(np.float64) @ self.weight + self.offset


class Ridge:
    """Fits for any regularization.

    The smaller one of the Gram matrix (n x n) and the covariance (d x d) is decomposed.

    Args:
        features: n x d.
        targets: n x C.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray) -> None:
        self._mean, self._offset = features.mean(0, dtype=np.float64), targets.mean(0, dtype=np.float64)
        self._x, self._targets = features - self._mean, targets.astype(np.float64)
        self._wide = self._x.shape[1] > len(self._x)
        values, self._vectors = np.linalg.eigh(self._x @ self._x.T if self._wide else self._x.T @ self._x)
        self._values = values.clip(min=0)
        centred = self._targets - self._offset
        # m x C for m = min(n, d): the targets in the basis of the eigenvectors
        self._projected = self._vectors.T @ (centred if self._wide else self._x.T @ centred)

    def _solved(self, regularization: float) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of the regularized eigenvalues (m), and the coefficients of the fit (m x C)."""
        # Without an eigenvalue above 0 all features are constant: any regularization gives weights of 0.
        mean = self._values.mean() or 1.0
        inverse = 1 / (self._values + regularization * mean)
        return inverse, self._vectors @ (inverse[:, None] * self._projected)

    def fit(self, regularization: float) -> LinearScores:
        """The classifier of a regularization > 0."""
        _, solved = self._solved(regularization)
        weight = self._x.T @ solved if self._wide else solved
        return LinearScores(weight, self._offset - self._mean @ weight)

    def leave_one_out(self, regularization: float) -> np.ndarray:
        """Scores of each row by the classifier that is fitted to all other rows, n x C, without fitting it.

        Source: Allen 1974, The relationship between variable selection and data augmentation and a method for
        prediction (PRESS): the residual of a row, divided by 1 - its leverage.
        """
        inverse, solved = self._solved(regularization)
        if self._wide:
            fitted = self._vectors @ ((self._values * inverse)[:, None] * self._projected)
            leverage = np.square(self._vectors) @ (self._values * inverse)
        else:
            fitted = self._x @ solved
            leverage = np.square(self._x @ self._vectors) @ inverse
        residual = self._targets - self._offset - fitted
        others = (1 - leverage - 1 / len(self._x)).clip(min=1e-12)  # 1 / n: of the intercept
        return self._targets - residual / others[:, None]


def leave_one_out_fit(
    features: np.ndarray, labels: np.ndarray, regularizations: Sequence[float] = REGULARIZATIONS
) -> LinearScores:
    """The classifier whose regularization has the best leave-one-out accuracy on the rows it is fitted to.

    At ties, the smaller squared error of the left-out rows decides. Features are standardized inside.

    Args:
        features: n x d.
        labels: n classes from 0.
        regularizations: to choose from.
    """
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64).clip(min=1e-6)
    targets = np.eye(int(labels.max()) + 1)[labels]
    ridge = Ridge((features - mean) / deviation, targets)

    def key(regularization: float) -> tuple[float, float]:
        scores = ridge.leave_one_out(regularization)
        return float((scores.argmax(1) == labels).mean()), -float(np.square(scores - targets).mean())

    best = ridge.fit(max(regularizations, key=key))
    weight = best.weight / deviation[:, None]
    return LinearScores(weight, best.offset - mean @ weight)
