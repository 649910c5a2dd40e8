"""The patients: 569 of the Breast Cancer Wisconsin (Diagnostic) data that scikit-learn carries."""

from functools import lru_cache

from sklearn.datasets import load_breast_cancer

#: The model is trained on the first so many patients; all are scored.
TRAINED_ON = 300
MALIGNANT = 0


@lru_cache(maxsize=1)
def patients():
    """Measurements by patient, and whether each patient's tumour is malignant."""
    measurements, target = load_breast_cancer(return_X_y=True)
    return measurements, target == MALIGNANT
