"""scikit-learn classifiers, stored by skops, which reads without running code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.core.access import Access
from robustbench_local.core.errors import ModelError
from robustbench_local.models.black_box import BlackBox
from robustbench_local.models.description import Description
from robustbench_local.models.format import Asked, Format, Loaded, file_identity

_SCORES = {"predict_proba": "probabilities", "decision_function": "logits"}  # the first that it has


class Sklearn(Format):
    prefixes = ("sklearn",)
    suffixes = (".skops",)
    summary = "a scikit-learn classifier: sklearn:forest.skops"

    def load(self, asked: Asked) -> Loaded:
        asked.refuse_weights("is a whole classifier")
        try:
            import skops.io
        except ImportError as error:
            raise ModelError(f'"{asked.spec}" needs skops: pip install robustbench_local[models] ({error})') from error
        path = asked.file
        unknown = skops.io.get_untrusted_types(file=path)
        if unknown and not asked.trust:
            raise ModelError(
                f"{path} holds {', '.join(unknown[:5])}, which may run code: say trust=true if you trust it"
            )
        return Loaded(*_classifier(skops.io.load(path, trusted=unknown), asked), identity=file_identity(path))


def _classifier(found: Any, asked: Asked) -> tuple[BlackBox, Description]:
    names = getattr(found, "classes_", None)
    if names is None or not hasattr(found, "predict"):
        raise ModelError(f"{asked.file} holds a {type(found).__name__}: give a fitted classifier")
    scores = next((name for name in _SCORES if hasattr(found, name)), None)
    if asked.said.access == "labels":
        scores = None
    features = getattr(found, "n_features_in_", None)

    def ask(images: npt.NDArray[np.float32]) -> Any:
        table = images.reshape(len(images), -1)
        if features is not None and table.shape[1] != features:
            raise ModelError(
                f"{asked.file} takes {features} features, and images of {images.shape[1:]} are not as many"
            )
        if scores is None:
            return np.searchsorted(names, found.predict(table))
        return getattr(found, scores)(table)

    access = Access.LABELS if scores is None else Access.SCORES
    box = BlackBox(ask, what=f'"{asked.spec}"', access=access, classes=len(names))
    outputs = None if scores is None else _SCORES[scores]
    return box, Description(classes=[str(name) for name in names], access=access.name.lower(), outputs=outputs)  # type: ignore[arg-type]
