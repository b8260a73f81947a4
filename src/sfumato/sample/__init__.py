"""Samplers: tables, what compiles them, and what runs them."""

from __future__ import annotations

from sfumato.sample.acceleration import Acceleration, AccelerationFlow, AccelerationSplitting
from sfumato.sample.adaptive_exponential import AdaptiveWalk, adaptive_dpm_solver
from sfumato.sample.adaptive_ode import flow
from sfumato.sample.adaptive_sde import Adaptive, AdaptiveSamples, adaptive_sde
from sfumato.sample.adjoint import Gradient, adjoint, adjoint_from_end, program_gradient
from sfumato.sample.aligned_schedule import aligned, published, tangent
from sfumato.sample.ancestral import Ancestral
from sfumato.sample.bespoke import Warp, bespoke_program
from sfumato.sample.bespoke_fit import BespokeSettings, fit_bespoke
from sfumato.sample.blending import blend, random_blend
from sfumato.sample.boundary_fit import SharedStart, agreement, fit_to_shape, refine_start, score_starts, select_start
from sfumato.sample.brownian import BrownianPath
from sfumato.sample.calibration import Calibrated, Starts, check_apart, subdivide, teach
from sfumato.sample.chain import chain
from sfumato.sample.cold import cold_sample
from sfumato.sample.conjugate import Bend, Conjugate
from sfumato.sample.consistency import Consistency, consistency, measured_order
from sfumato.sample.cycle import Encoding, cycle_encode
from sfumato.sample.denoising_mcmc import DenoisingMCMC, ExactLevels
from sfumato.sample.distilled import distil
from sfumato.sample.dynamic_schedule import cheapest_paths, dynamic_schedule, jump_costs, with_free_node
from sfumato.sample.er_sde import ERSDE, NOISE_SCALES, NoiseScale
from sfumato.sample.exponential import Exponential
from sfumato.sample.fitted import fit_program
from sfumato.sample.gaussian_error import Response, response
from sfumato.sample.heun import Heun
from sfumato.sample.improved_integration import improved_integration
from sfumato.sample.langevin import Corrected, NormLangevin, PredictorCorrector
from sfumato.sample.likelihood import Likelihood, divergence_of, log_likelihood
from sfumato.sample.linear_program import LinearProgram, LinearRow, LinearSolver, run_linear
from sfumato.sample.linear_response import output_law
from sfumato.sample.linear_solvers import LinearAncestral, LinearDDIM, LinearEuler
from sfumato.sample.linearisation import Linearisation
from sfumato.sample.maximum_likelihood import MaximumLikelihood
from sfumato.sample.momentum import Momentum
from sfumato.sample.multistep import ddim, deis, dpm_solver, ipndm, unipc
from sfumato.sample.path_divergence import BeliefError, path_divergence
from sfumato.sample.presets import PRESETS
from sfumato.sample.program import Program, Row
from sfumato.sample.reference import Trajectory, reference, reference_times
from sfumato.sample.renoising import Renoising
from sfumato.sample.replacement import Replaced
from sfumato.sample.restart import Churned, Interval, Restart
from sfumato.sample.restoration import Restoration
from sfumato.sample.reverse_chain import LearnedVariance, ReverseChain, sample_chain
from sfumato.sample.reverse_sde import ImprovedEuler, ReverseSDE
from sfumato.sample.row_fit import fit_rows
from sfumato.sample.run import Denoise, Draws, Event, Plan, Walk, run
from sfumato.sample.runge_kutta import TABLEAUS, RungeKutta
from sfumato.sample.sa_solver import Band, SASolver
from sfumato.sample.sampler import Sampler
from sfumato.sample.scale_wise import BySize, ScaleWise
from sfumato.sample.schedules import custom, karras, uniform_log_snr, uniform_time
from sfumato.sample.singlestep import Fast, Singlestep
from sfumato.sample.skip import HybridSamples, SkipForecast, forecast_skip, hybrid_sample
from sfumato.sample.solver import Solver
from sfumato.sample.splitting import ScoreKick, Splitting, StochasticSplitting
from sfumato.sample.statistics import Statistics, coordinates, measure_statistics
from sfumato.sample.statistics_solver import dpm_solver_v3, run_shifted
from sfumato.sample.step import Step, Stream, TableStep, walk
from sfumato.sample.strong_error import strong_error
from sfumato.sample.teleport import Teleported, teleport
from sfumato.sample.thresholding import Thresholded

__all__ = [
    "ERSDE",
    "NOISE_SCALES",
    "PRESETS",
    "TABLEAUS",
    "Acceleration",
    "AccelerationFlow",
    "AccelerationSplitting",
    "Adaptive",
    "AdaptiveSamples",
    "AdaptiveWalk",
    "Ancestral",
    "Band",
    "BeliefError",
    "Bend",
    "BespokeSettings",
    "BrownianPath",
    "BySize",
    "Calibrated",
    "Churned",
    "Conjugate",
    "Consistency",
    "Corrected",
    "Denoise",
    "DenoisingMCMC",
    "Draws",
    "Encoding",
    "Event",
    "ExactLevels",
    "Exponential",
    "Fast",
    "Gradient",
    "Heun",
    "HybridSamples",
    "ImprovedEuler",
    "Interval",
    "LearnedVariance",
    "Likelihood",
    "LinearAncestral",
    "LinearDDIM",
    "LinearEuler",
    "LinearProgram",
    "LinearRow",
    "LinearSolver",
    "Linearisation",
    "MaximumLikelihood",
    "Momentum",
    "NoiseScale",
    "NormLangevin",
    "Plan",
    "PredictorCorrector",
    "Program",
    "Renoising",
    "Replaced",
    "Response",
    "Restart",
    "Restoration",
    "ReverseChain",
    "ReverseSDE",
    "Row",
    "RungeKutta",
    "SASolver",
    "Sampler",
    "ScaleWise",
    "ScoreKick",
    "SharedStart",
    "Singlestep",
    "SkipForecast",
    "Solver",
    "Splitting",
    "Starts",
    "Statistics",
    "Step",
    "StochasticSplitting",
    "Stream",
    "TableStep",
    "Teleported",
    "Thresholded",
    "Trajectory",
    "Walk",
    "Warp",
    "adaptive_dpm_solver",
    "adaptive_sde",
    "adjoint",
    "adjoint_from_end",
    "agreement",
    "aligned",
    "bespoke_program",
    "blend",
    "chain",
    "cheapest_paths",
    "check_apart",
    "cold_sample",
    "consistency",
    "coordinates",
    "custom",
    "cycle_encode",
    "ddim",
    "deis",
    "distil",
    "divergence_of",
    "dpm_solver",
    "dpm_solver_v3",
    "dynamic_schedule",
    "fit_bespoke",
    "fit_program",
    "fit_rows",
    "fit_to_shape",
    "flow",
    "forecast_skip",
    "hybrid_sample",
    "improved_integration",
    "ipndm",
    "jump_costs",
    "karras",
    "log_likelihood",
    "measure_statistics",
    "measured_order",
    "output_law",
    "path_divergence",
    "program_gradient",
    "published",
    "random_blend",
    "reference",
    "reference_times",
    "refine_start",
    "response",
    "run",
    "run_linear",
    "run_shifted",
    "sample_chain",
    "score_starts",
    "select_start",
    "strong_error",
    "subdivide",
    "tangent",
    "teach",
    "teleport",
    "uniform_log_snr",
    "uniform_time",
    "unipc",
    "walk",
    "with_free_node",
]
