"""Linear classifiers of feature vectors, tested on clips that they were not fitted to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from saccade.data.folds import Fold, inner_validation

# Of more clips, this many are drawn to choose the settings and the principal components; all are used for the fit.
_MAX_CLIPS = 5000
_MAX_DIMS = 1024
_NUM_INNER = 4


@dataclass(frozen=True, eq=False)
class Candidate:
    """A classifier of feature vectors with the settings to choose from.

    Args:
        features: a row for each clip.
        model: a classifier of scikit-learn.
        settings: the values to choose from, by the name of the parameter.
        linear: whether the features are standardised and rotated to their principal components first.
    """

    features: NDArray[Any]
    model: Any
    settings: dict[str, list[float]]
    linear: bool = True


def ridge(features: NDArray[Any]) -> Candidate:
    """Return ridge regression on the classes, one against the rest."""
    return Candidate(features, RidgeClassifier(), {"alpha": [1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1]})


def logistic(features: NDArray[Any]) -> Candidate:
    """Return logistic regression; its classes exclude each other."""
    return Candidate(features, LogisticRegression(max_iter=200, tol=1e-3), {"C": [1e0, 1e1, 1e2, 1e3]})


def forest(features: NDArray[Any]) -> Candidate:
    """Return a random forest, for tables with few columns, in which a class can lie between thresholds."""
    model = RandomForestClassifier(50, max_leaf_nodes=256, random_state=0)
    return Candidate(features, model, {"min_samples_leaf": [2]}, linear=False)


def out_of_fold(
    candidates: Sequence[Candidate], targets: NDArray[Any], groups: Sequence[Hashable] | None, folds: Sequence[Fold]
) -> NDArray[Any]:
    """Return predictions for the test part of each fold; clips in no test part keep 0.

    The candidate and its settings are those with the best accuracy on inner validation parts, which are taken from the
    training part by groups. So nothing is chosen on test clips, and the settings are right for new groups.

    Args:
        candidates: the classifiers to choose from.
        targets: the class index of each clip, or the presence of each class as 0 or 1.
        groups: the group of each clip; None: each clip is a group.
        folds: the training clips and the test clips of each fold.
    """
    predictions = np.zeros_like(targets)
    for number, (train, test) in enumerate(folds):
        few = train
        if len(train) > _MAX_CLIPS:
            few = np.sort(np.random.default_rng(number).choice(train, _MAX_CLIPS, replace=False))
        inner = [inner_validation(targets, groups, few, seed) for seed in range(_NUM_INNER)]
        places = [(np.searchsorted(few, fit), np.searchsorted(few, held)) for fit, held in inner if len(held)]
        chosen = max((_chosen(one, targets, few, places) for one in candidates), key=lambda found: found.score)
        with _fits_accepted():
            chosen.model.fit(chosen.inputs(train), targets[train])
        predictions[test] = chosen.model.predict(chosen.inputs(test))
    return predictions


@dataclass(frozen=True, eq=False)
class _Chosen:
    """A candidate with its best settings, not yet fitted."""

    score: float
    model: Any
    inputs: Callable[[NDArray[np.intp]], NDArray[Any]]


def _chosen(
    candidate: Candidate, targets: NDArray[Any], few: NDArray[np.intp], places: list[tuple[Any, Any]]
) -> _Chosen:
    """Return the candidate with the settings that are best on the inner validation parts; the middle ones if none."""
    inputs = _linear_inputs(candidate.features, few) if candidate.linear else candidate.features.__getitem__
    if not places:
        middle = {name: values[len(values) // 2] for name, values in candidate.settings.items()}
        return _Chosen(0.0, clone(candidate.model).set_params(**middle), inputs)
    search = GridSearchCV(candidate.model, candidate.settings, cv=places, scoring="accuracy", refit=False)
    with _fits_accepted():
        search.fit(inputs(few), targets[few])
    return _Chosen(search.best_score_, clone(candidate.model).set_params(**search.best_params_), inputs)


def _linear_inputs(features: NDArray[Any], few: NDArray[np.intp]) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """Return a function from clips to principal components of standardised features; NaN becomes the median.

    For few clips this is only a rotation, which makes the fit as cheap as with one feature for each clip. The mean
    square length of a row is 1, so that one range of settings fits features of any number.
    """
    num_dims = min(len(few) - 1, features.shape[1], _MAX_DIMS)
    steps = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        PCA(num_dims, random_state=0),
    )
    with np.errstate(invalid="ignore", divide="ignore"):  # features that are all constant have no variance to share out
        steps.fit(features[few])

    def inputs(clips: NDArray[np.intp]) -> NDArray[np.float64]:
        rotated: NDArray[np.float64] = steps.transform(features[clips]).astype(np.float64)
        return rotated / math.sqrt(features.shape[1])

    return inputs


@contextmanager
def _fits_accepted() -> Iterator[None]:
    """Accept the fit that a bounded number of iterations gives, and classes with one clip or two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        yield
