"""Draw the gallery from the committed results: `make gallery`.

    python docs/gallery.py      # writes docs/figures/*.png

The pictures are those of `sqzexplore figures`, by the same functions, at 150 dpi.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fire_pictures
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import sqzexplore as sqz
from sqzexplore.figures import analyses, throughput, tradeoff
from sqzexplore.figures.style import STYLE, own_axes

ROOT = Path(__file__).resolve().parent.parent
RESULTS, TARGET = ROOT / "results", ROOT / "docs" / "figures"

mpl.use("agg")
tables = ("trials", "seeds", "images")
sr, sr_seeds, sr_images = (sqz.load_results(RESULTS / "sr", table) for table in tables)
joint = sqz.load_results(RESULTS / "cifar10-joint")
speed = sqz.load_results(str(RESULTS / "throughput-cpu" / "*"), "throughput")
simple, other = (joint[(joint["bypass"] == "complex") == flag]["top1"] for flag in (False, True))

SINGLE: dict[str, Callable[[Axes], Axes]] = {
    "tradeoff": lambda axes: tradeoff.tradeoff(sr, "train_size_mb", "top1", "squeeze_ratio", axes),
    "front": lambda axes: analyses.front(
        sr, sr_seeds, "train_size_mb", "val_top1", axes, sr_images
    ),
    "hypervolume": lambda axes: analyses.hypervolume(joint, ["train_params"], ["top1"], axes),
    "populations": lambda axes: analyses.populations(
        {"complex bypass": other, "none or simple bypass": simple}, "top-1 accuracy (%)", axes
    ),
    "importances": lambda axes: analyses.importances(joint, "top1", axes=axes),
    "fire_squeeze": fire_pictures.squeeze,
    "fire_pooling": fire_pictures.pooling,
    "throughput": lambda axes: throughput.speed_against_macs(speed, axes),
}


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        drawn = {name: draw(own_axes(None)).figure for name, draw in SINGLE.items()}
        drawn["effects"] = analyses.effects(joint, "top1")[0].figure
        for name, figure in drawn.items():
            figure.savefig(TARGET / f"{name}.png", dpi=150, metadata={"Software": None})
            print(TARGET / f"{name}.png")


if __name__ == "__main__":
    main()
