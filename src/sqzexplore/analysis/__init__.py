"""What the tables say: fronts, rankings, populations, effects, differences between architectures.

Every function takes tables that `load_results` gives, or columns of them, says what it needs, and
raises `UserError` where there is too little.
"""

from .checks import largest_budget, varying
from .effects import importance, interaction, main_effects, partial_dependence
from .front import (
    front_probability,
    hypervolume_curve,
    knee,
    nondominated,
    pareto_front,
    smallest_indistinguishable,
    smallest_within,
)
from .pairs import Difference, compare, welch
from .populations import Comparison, compare_populations, edf
from .ranking import Correlation, budget_ranking, correlation, early_ranking, rank_correlation

__all__ = [
    "Comparison",
    "Correlation",
    "Difference",
    "budget_ranking",
    "compare",
    "compare_populations",
    "correlation",
    "early_ranking",
    "edf",
    "front_probability",
    "hypervolume_curve",
    "importance",
    "interaction",
    "knee",
    "largest_budget",
    "main_effects",
    "nondominated",
    "pareto_front",
    "partial_dependence",
    "rank_correlation",
    "smallest_indistinguishable",
    "smallest_within",
    "varying",
    "welch",
]
