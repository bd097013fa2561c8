"""Label noise: rows whose label a model of the others finds unlikely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from workbench.errors import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Suspect(NamedTuple):
    """A row by its place, the label that the model finds likelier, and by how much its probability is higher."""

    place: int
    likely: str
    margin: float


def label_suspects(
    vectors: NDArray[np.float32], labels: Sequence[str], *, margin: float, folds: int = 5, seed: int = 0
) -> tuple[list[Suspect], set[str]]:
    """Rows whose given label has an out-of-fold probability lower by more than `margin` than that of another label.

    The probabilities are those of a logistic regression on embeddings, each row's from a model that has not seen it; their
    difference is the normalized margin of confident learning (Northcutt et al. 2021). Labels with fewer rows than folds
    are left out, since some model would not have seen them.

    Args:
        vectors: embeddings, shape (n, dimensions).
        labels: of the same rows.

    Returns: the suspects, the least likely label first, and the labels that were left out.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    import numpy as np

    counts = Counter(labels)
    rare = {label for label, count in counts.items() if count < folds}
    places = np.array([place for place, label in enumerate(labels) if label not in rare], int)
    if len(counts) - len(rare) < 2:
        return [], rare
    linear = require("sklearn.linear_model", extra="local")
    selection = require("sklearn.model_selection", extra="local")
    classes, given = np.unique([labels[place] for place in places], return_inverse=True)
    probabilities = selection.cross_val_predict(
        linear.LogisticRegression(max_iter=1000),
        vectors[places].astype(np.float64),
        given,
        cv=selection.StratifiedKFold(folds, shuffle=True, random_state=seed),
        method="predict_proba",
    )
    own = probabilities[np.arange(len(given)), given]
    probabilities[np.arange(len(given)), given] = -1.0
    other = probabilities.argmax(1)
    margins = probabilities[np.arange(len(given)), other] - own
    found = [
        Suspect(int(places[row]), str(classes[other[row]]), float(margins[row]))
        for row in np.flatnonzero(margins > margin)
    ]
    return sorted(found, key=lambda suspect: (-suspect.margin, suspect.place)), rare
