"""Samplers: tables, what compiles them, and what runs them."""

from __future__ import annotations

from sfumato.sample.compilers.ancestral import Ancestral
from sfumato.sample.compilers.chain import chain
from sfumato.sample.compilers.er_sde import ERSDE, NOISE_SCALES, NoiseScale
from sfumato.sample.compilers.exponential import Exponential
from sfumato.sample.compilers.heun import Heun
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.compilers.maximum_likelihood import MaximumLikelihood
from sfumato.sample.compilers.momentum import Momentum
from sfumato.sample.compilers.multistep import ddim, deis, dpm_solver, ipndm, unipc
from sfumato.sample.compilers.runge_kutta import TABLEAUS, RungeKutta
from sfumato.sample.compilers.sa_solver import Band, SASolver
from sfumato.sample.compilers.singlestep import Fast, Singlestep
from sfumato.sample.compilers.teleport import Teleported, teleport
from sfumato.sample.continuous.adaptive_exponential import AdaptiveWalk, adaptive_dpm_solver
from sfumato.sample.continuous.adaptive_ode import flow
from sfumato.sample.continuous.adjoint import Gradient, adjoint, adjoint_from_end, program_gradient
from sfumato.sample.continuous.likelihood import Likelihood, divergence_of, log_likelihood
from sfumato.sample.fits.bespoke import Warp, bespoke_program
from sfumato.sample.fits.bespoke_fit import BespokeSettings, fit_bespoke
from sfumato.sample.fits.boundary_fit import SharedStart, agreement, fit_to_shape, refine_start, score_starts, select_start
from sfumato.sample.fits.calibration import Calibrated, Starts, check_apart, subdivide, teach
from sfumato.sample.fits.distilled import distil
from sfumato.sample.fits.fitted import fit_program
from sfumato.sample.fits.improved_integration import improved_integration
from sfumato.sample.fits.reference import Trajectory, reference, reference_times
from sfumato.sample.fits.row_fit import fit_rows
from sfumato.sample.fits.statistics import Statistics, coordinates, measure_statistics
from sfumato.sample.fits.statistics_solver import dpm_solver_v3, run_shifted
from sfumato.sample.judges.consistency import Consistency, consistency, measured_order
from sfumato.sample.judges.gaussian_error import Response, response
from sfumato.sample.judges.path_divergence import BeliefError, path_divergence
from sfumato.sample.judges.skip import HybridSamples, SkipForecast, forecast_skip, hybrid_sample
from sfumato.sample.judges.strong_error import strong_error
from sfumato.sample.linear.acceleration import Acceleration, AccelerationFlow, AccelerationSplitting
from sfumato.sample.linear.conjugate import Bend, Conjugate
from sfumato.sample.linear.linear_program import LinearProgram, LinearRow, LinearSolver, run_linear
from sfumato.sample.linear.linear_response import output_law
from sfumato.sample.linear.linear_solvers import LinearAncestral, LinearDDIM, LinearEuler
from sfumato.sample.linear.splitting import ScoreKick, Splitting, StochasticSplitting
from sfumato.sample.presets import PRESETS
from sfumato.sample.program import Program, Row
from sfumato.sample.run import Denoise, Draws, Event, Plan, Walk, run
from sfumato.sample.sampler import Sampler
from sfumato.sample.solver import Solver
from sfumato.sample.steps.adaptive_sde import Adaptive, AdaptiveSamples, adaptive_sde
from sfumato.sample.steps.blending import blend, random_blend
from sfumato.sample.steps.brownian import BrownianPath
from sfumato.sample.steps.cold import cold_sample
from sfumato.sample.steps.cycle import Encoding, cycle_encode
from sfumato.sample.steps.denoising_mcmc import DenoisingMCMC, ExactLevels
from sfumato.sample.steps.langevin import Corrected, NormLangevin, PredictorCorrector
from sfumato.sample.steps.renoising import Renoising
from sfumato.sample.steps.replacement import Replaced
from sfumato.sample.steps.restart import Churned, Interval, Restart
from sfumato.sample.steps.restoration import Restoration
from sfumato.sample.steps.reverse_chain import LearnedVariance, ReverseChain, sample_chain
from sfumato.sample.steps.reverse_sde import ImprovedEuler, ReverseSDE
from sfumato.sample.steps.scale_wise import BySize, ScaleWise
from sfumato.sample.steps.step import Step, Stream, TableStep, walk
from sfumato.sample.steps.thresholding import Thresholded
from sfumato.sample.times.aligned_schedule import aligned, published, tangent
from sfumato.sample.times.dynamic_schedule import cheapest_paths, dynamic_schedule, jump_costs, with_free_node
from sfumato.sample.times.schedules import custom, karras, uniform_log_snr, uniform_time

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
