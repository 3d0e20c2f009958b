"""What the tests of predictions share."""

from __future__ import annotations

import pytest

from sqzexplore.predict import fit as fit_
from sqzexplore.predict.models import MODELS


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model to choose from: a tenth of the time."""
    only = {"gaussian process": MODELS["gaussian process"]}
    monkeypatch.setattr(fit_, "MODELS", only)
