"""Explaining: what a model knows, where it comes from, and what follows for its owner."""

from __future__ import annotations

from sfumato.explain.commitment import Commitment, commitment
from sfumato.explain.diffusion_time import TimeTradeoff, time_tradeoff
from sfumato.explain.dynamics import Dynamics, reverse_times
from sfumato.explain.emergence import ConditionalEmergence, Emergence, emergence, emergence_by_condition
from sfumato.explain.generalization import GeneralizationReport, generalization_report
from sfumato.explain.geometry import TrajectoryGeometry, answer_gaps, blended, density_ascent, trajectory_geometry, wandering
from sfumato.explain.kernel_gap import KernelGap, kernel_gap
from sfumato.explain.landscape import ModeTree, mean_shift, mode_tree
from sfumato.explain.learning import LearningProbe, LearningReport, learning_of, learning_report
from sfumato.explain.learning_comparison import LearningComparison, compare_learning
from sfumato.explain.learning_curve import LearningCurve, learning_curve
from sfumato.explain.learning_twins import gaussian_twin, untrained_twin, whitened_twin
from sfumato.explain.linear_probe import LinearProbe, linear_loss, linear_probe
from sfumato.explain.manifold import ManifoldDimension, ManifoldScan, manifold_dimension, manifold_scan, slerp
from sfumato.explain.memorization import Memorization, memorization
from sfumato.explain.mode_variance import ModeLearning, mode_learning, mode_variances
from sfumato.explain.ode_sde_gap import OdeSdeGap, linear_gap
from sfumato.explain.paths import MostLikelyPath, most_likely_path
from sfumato.explain.program_table import ProgramTable, program_table
from sfumato.explain.proxy_map import ProxyMap, proxy_map
from sfumato.explain.response import PerturbationResponse, perturbation_response
from sfumato.explain.scale_criterion import ScaleCriterion, scale_criterion
from sfumato.explain.score_martingale import MeanScore, ScoreMartingale, mean_score, score_martingale
from sfumato.explain.score_probe import ScoreProbe, gaussian_approximants, score_probe
from sfumato.explain.section import Section
from sfumato.explain.stability import Stability, growth, predicted_boundary, real_boundary, stability
from sfumato.explain.straightness import Straightness, straightness
from sfumato.explain.symmetry import SymmetryReport, noisy_states, symmetry_report
from sfumato.explain.teleport import TeleportForecast, teleport_forecast
from sfumato.explain.time_lipschitz import TimeLipschitz, time_lipschitz
from sfumato.explain.trajectory import TrajectoryReport, path_shape, rotation_remainder, trajectory_report
from sfumato.explain.two_modes import TwoModes
from sfumato.explain.variance import AverageDenoiser, EffectiveSDE, ensemble, naive
from sfumato.explain.variation_sheet import VariationSheet, variation_sheet

__all__ = [
    "AverageDenoiser",
    "Commitment",
    "ConditionalEmergence",
    "Dynamics",
    "EffectiveSDE",
    "Emergence",
    "GeneralizationReport",
    "KernelGap",
    "LearningComparison",
    "LearningCurve",
    "LearningProbe",
    "LearningReport",
    "LinearProbe",
    "ManifoldDimension",
    "ManifoldScan",
    "MeanScore",
    "Memorization",
    "ModeLearning",
    "ModeTree",
    "MostLikelyPath",
    "OdeSdeGap",
    "PerturbationResponse",
    "ProgramTable",
    "ProxyMap",
    "ScaleCriterion",
    "ScoreMartingale",
    "ScoreProbe",
    "Section",
    "Stability",
    "Straightness",
    "SymmetryReport",
    "TeleportForecast",
    "TimeLipschitz",
    "TimeTradeoff",
    "TrajectoryGeometry",
    "TrajectoryReport",
    "TwoModes",
    "VariationSheet",
    "answer_gaps",
    "blended",
    "commitment",
    "compare_learning",
    "density_ascent",
    "emergence",
    "emergence_by_condition",
    "ensemble",
    "gaussian_approximants",
    "gaussian_twin",
    "generalization_report",
    "growth",
    "kernel_gap",
    "learning_curve",
    "learning_of",
    "learning_report",
    "linear_gap",
    "linear_loss",
    "linear_probe",
    "manifold_dimension",
    "manifold_scan",
    "mean_score",
    "mean_shift",
    "memorization",
    "mode_learning",
    "mode_tree",
    "mode_variances",
    "most_likely_path",
    "naive",
    "noisy_states",
    "path_shape",
    "perturbation_response",
    "predicted_boundary",
    "program_table",
    "proxy_map",
    "real_boundary",
    "reverse_times",
    "rotation_remainder",
    "scale_criterion",
    "score_martingale",
    "score_probe",
    "slerp",
    "stability",
    "straightness",
    "symmetry_report",
    "teleport_forecast",
    "time_lipschitz",
    "time_tradeoff",
    "trajectory_geometry",
    "trajectory_report",
    "untrained_twin",
    "variation_sheet",
    "wandering",
    "whitened_twin",
]
