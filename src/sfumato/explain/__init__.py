"""Explaining: what a model knows, where it comes from, and what follows for its owner."""

from __future__ import annotations

from sfumato.explain.generalising.generalization import GeneralizationReport, generalization_report
from sfumato.explain.generalising.manifold import ManifoldDimension, ManifoldScan, manifold_dimension, manifold_scan, slerp
from sfumato.explain.generalising.memorization import Memorization, memorization
from sfumato.explain.generalising.proxy_map import ProxyMap, proxy_map
from sfumato.explain.generalising.section import Section
from sfumato.explain.generalising.variance import AverageDenoiser, EffectiveSDE, ensemble, naive
from sfumato.explain.learning.learning import LearningProbe, LearningReport, learning_of, learning_report
from sfumato.explain.learning.learning_comparison import LearningComparison, compare_learning
from sfumato.explain.learning.learning_curve import LearningCurve, learning_curve
from sfumato.explain.learning.learning_twins import gaussian_twin, untrained_twin, whitened_twin
from sfumato.explain.learning.mode_variance import ModeLearning, mode_learning, mode_variances
from sfumato.explain.noether.dynamics import Dynamics, reverse_times
from sfumato.explain.noether.paths import MostLikelyPath, most_likely_path
from sfumato.explain.noether.symmetry import SymmetryReport, noisy_states, symmetry_report
from sfumato.explain.sampling.commitment import Commitment, commitment
from sfumato.explain.sampling.diffusion_time import TimeTradeoff, time_tradeoff
from sfumato.explain.sampling.emergence import ConditionalEmergence, Emergence, emergence, emergence_by_condition
from sfumato.explain.sampling.geometry import TrajectoryGeometry, answer_gaps, blended, density_ascent, trajectory_geometry, wandering
from sfumato.explain.sampling.program_table import ProgramTable, program_table
from sfumato.explain.sampling.response import PerturbationResponse, perturbation_response
from sfumato.explain.sampling.scale_criterion import ScaleCriterion, scale_criterion
from sfumato.explain.sampling.stability import Stability, growth, predicted_boundary, real_boundary, stability
from sfumato.explain.sampling.straightness import Straightness, straightness
from sfumato.explain.sampling.teleport import TeleportForecast, teleport_forecast
from sfumato.explain.sampling.trajectory import TrajectoryReport, path_shape, rotation_remainder, trajectory_report
from sfumato.explain.sampling.variation_sheet import VariationSheet, variation_sheet
from sfumato.explain.score.kernel_gap import KernelGap, kernel_gap
from sfumato.explain.score.landscape import ModeTree, mean_shift, mode_tree
from sfumato.explain.score.linear_probe import LinearProbe, linear_loss, linear_probe
from sfumato.explain.score.ode_sde_gap import OdeSdeGap, linear_gap
from sfumato.explain.score.score_martingale import MeanScore, ScoreMartingale, mean_score, score_martingale
from sfumato.explain.score.score_probe import ScoreProbe, gaussian_approximants, score_probe
from sfumato.explain.score.time_lipschitz import TimeLipschitz, time_lipschitz
from sfumato.explain.score.two_modes import TwoModes

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
