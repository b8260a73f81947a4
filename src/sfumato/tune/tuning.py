r"""The main job: from a model and its data to the sampler that reaches reference quality in the fewest evaluations.

1. statistics of the data: a Gaussian, a small mixture, the points;
2. diagnosis: how much of the learned score each explains, by noise level;
3. teleport: the lowest level to which the closed form carries a sample within tolerance;
4. search: nodes on the mixture world (no network call), then on the network, against its own high-accuracy flow; then the choice among
   this table, the other fits and the closed forms;
5. evidence: all candidates, and `diffusers`' schedulers, on noise that no choice has seen.

Every set of starts has draws of its own: to fit, to judge fits while searching, and to measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.explain import ScoreProbe, score_probe
from sfumato.explain.worlds import Worlds, fit_worlds
from sfumato.integrations import PEERS
from sfumato.machine import machine
from sfumato.metrics import endpoint_error
from sfumato.progress import Progress, Silent, Timed
from sfumato.sample import Denoise, Program, Sampler, Trajectory, reference, reference_times
from sfumato.seeds import noise
from sfumato.tune.candidates import FITS, Calibration, Ground, Paths, Proposals
from sfumato.tune.choosing import Choice, Contest, family_of
from sfumato.tune.measure import classic_programs, distance_to, measure_peers, measure_program
from sfumato.tune.recipe import Recipe
from sfumato.tune.result import Candidate, Family, Teleport, TuneResult, best_of
from sfumato.tune.search import RIDGES, Bench, first_guesses, search
from sfumato.tune.teleport import predict_teleport

_SHOWN: tuple[Family, ...] = ("ours", "diffusers")
_PROBES = 512
_PICTURES = 12
_FEW, _SCREEN = 160, 32
"""Paths for fits of few numbers, and starts that the list of closed forms is shortened on."""


@dataclass(frozen=True)
class TuneSettings:
    """What tuning may spend.

    Arguments:
        evaluations: the budgets to find a program for.
        tolerance: the relative error at the end that a teleport may cost by itself.
        seed: of all noise.
        steps: evaluations of a reference trajectory.
        fit, judge, measure: how many starts programs are fitted to, judged on while searching, and measured on at last.
        quality: how many samples are compared with held-out data; 0 for none.
        world_trials, network_trials: fits a budget may cost on the mixture world and on the network.
        closed_forms: published and Gaussian solvers that a budget may try on the mixture world; 0 for none.
        fits: further fits a budget may try, names of `candidates.FITS`.
    """

    evaluations: tuple[int, ...] = (5, 8, 10, 15, 20)
    tolerance: float = 0.01
    seed: int = 0
    steps: int = 80
    fit: int = 512
    judge: int = 128
    measure: int = 256
    quality: int = 1000
    world_trials: int = 40
    network_trials: int = 16
    closed_forms: int = 48
    fits: tuple[str, ...] = ("search", "integration", "distilled", "statistics")

    def __post_init__(self) -> None:
        if not self.evaluations or any(n < 1 for n in self.evaluations):
            raise ArgumentError("evaluations", list(self.evaluations), "budgets of at least 1 evaluation")
        if max(self.evaluations) > self.steps // 2:
            raise ArgumentError("evaluations", max(self.evaluations), f"budgets of at most {self.steps // 2}, half the reference's steps")
        if not 0 < self.tolerance < 1:
            raise ArgumentError("tolerance", self.tolerance, "a relative error in (0, 1)")
        if min(self.fit, self.judge, self.measure) < 16:
            raise ArgumentError("fit, judge, measure", (self.fit, self.judge, self.measure), "at least 16 starts each")
        if self.closed_forms < 0 or not set(self.fits) <= set(FITS):
            given = (self.closed_forms, list(self.fits))
            raise ArgumentError("closed_forms, fits", given, f"a number of at least 0, and names among {', '.join(FITS)}")


def tune(
    denoiser: Denoiser,
    data: Dataset,
    settings: TuneSettings | None = None,
    *,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[Recipe, TuneResult]:
    """Tune a sampler for a denoiser.

    Arguments:
        denoiser: the model, unconditional or with a condition that may be left out.
        data: some of the data it was trained on, and some it was not.
        settings: what may be spent.
        about: facts about the model to show in the report.
        progress: whom to tell.

    Raises:
        ShapeError: the denoiser does not answer in the shape of the data's events.
    """
    job = _Job(denoiser, data, settings or TuneSettings(), Timed(progress or Silent()))
    with torch.no_grad():
        return job.run(about or {})


class _Job:
    def __init__(self, denoiser: Denoiser, data: Dataset, settings: TuneSettings, progress: Timed) -> None:
        self.denoiser, self.data, self.settings, self.progress = denoiser, data, settings, progress
        self.process, self.event = denoiser.process, tuple(data.event_shape)
        answer = denoiser.denoise(data.train[:2], 0.5)
        if answer.shape != data.train[:2].shape:
            raise ShapeError("denoiser", tuple(answer.shape[1:]), f"answers of the data's event shape {self.event}")

    def run(self, about: dict[str, Any]) -> tuple[Recipe, TuneResult]:
        settings = self.settings
        with self.progress.task("statistics of the data", 1) as p:
            worlds = fit_worlds(self.data, seed=settings.seed)
            p.advance()
        diagnosis = self._diagnose(worlds)
        total = settings.fit + settings.judge
        truth, half_error = self._reference(self.denoiser.denoise, worlds, "reference trajectories", total + settings.measure, check=True)
        calibration, held_out = self._paths(truth[:total]), truth[total:]
        teleport = predict_teleport(calibration.trajectory, worlds.gaussian, settings.tolerance)
        self.progress.inner.note(f"the closed form carries samples from noise down to k = {teleport.ratio:.3g}")
        choices, world = self._search(worlds, calibration, teleport)
        chosen = {n: choice.chosen.program.name for n, choice in choices.items()}
        candidates, samplers = self._measure(worlds, choices, held_out, teleport)
        candidates, floor, pictures = self._quality(candidates, samplers, choices, held_out)
        recipe = self._recipe(worlds, choices, candidates)
        result = TuneResult(
            model={"process": self.process.kind, **about},
            data={"name": self.data.name, "train": len(self.data.train), "test": len(self.data.test), "event_shape": list(self.event)},
            settings={name: getattr(settings, name) for name in settings.__dataclass_fields__},
            machine=machine(),
            diagnosis=diagnosis,
            teleport=teleport,
            reference={"evaluations": float(settings.steps), "self_error": half_error, "samples": float(settings.measure)},
            candidates=candidates,
            world=world,
            chosen=chosen,
            floor=floor,
            timings=self.progress.timings,
            pictures=pictures,
            contest={n: choice.contest for n, choice in choices.items()},
            skipped={n: choice.skipped for n, choice in choices.items()},
        )
        return recipe, result

    def _diagnose(self, worlds: Worlds) -> ScoreProbe:
        grid = torch.logspace(-1.7, 1.3, 19, dtype=torch.float64).tolist()
        ratios = [k for k in grid if k <= float(self.process.ratio(1.0))]
        approximants = {name: law.denoiser(self.process) for name, law in worlds.approximants().items()}
        with self.progress.task("explained variance of the score", len(ratios)) as p:
            x0 = self.data.train[:_PROBES]
            return score_probe(self.denoiser, approximants, x0, ratios, seed=self.settings.seed, progress=lambda _: p.advance())

    def _reference(self, denoise: Denoise, worlds: Worlds, task: str, n: int, check: bool = False) -> tuple[Trajectory, float]:
        """The flow from `n` starts, in chunks; with `check`, its end's distance to that of a reference of half the steps."""
        times = reference_times(self.process, self.settings.steps)
        x = self.process.prior_sample(noise(self.settings.seed, n, self.event).draw(0))
        chunks = torch.split(x, 256)
        few = x[-64:]
        with self.progress.task(task, len(chunks) * len(times)) as p:

            def counted(x: Tensor, t: float) -> Tensor:
                p.advance()
                return denoise(x, t)

            parts = [reference(counted, c, self.process, worlds.gaussian, times) for c in chunks]
            states = tuple(torch.cat(s) for s in zip(*(part.states for part in parts), strict=True))
            error = 0.0
            if check:
                coarse = reference(denoise, few, self.process, worlds.gaussian, reference_times(self.process, self.settings.steps // 2))
                error = endpoint_error(coarse.end, states[-1][-64:]).value
        return Trajectory(self.process, times, states), error

    def _paths(self, trajectory: Trajectory) -> Paths:
        """The first trajectories with the draws they were made of."""
        return Paths(trajectory, frozenset(noise(self.settings.seed, len(trajectory.end), self.event).keys))

    def _search(self, worlds: Worlds, calibration: Paths, teleport: Teleport) -> tuple[dict[int, Choice], list[Candidate]]:
        """What was chosen for each budget, and what the mixture world said of its table."""
        settings, fit, dreamer = self.settings, self.settings.fit, worlds.mixture.denoiser(self.process)
        imagined, _ = self._reference(dreamer.denoise, worlds, "trajectories of the mixture world", fit + settings.judge)
        world = Bench(dreamer.denoise, imagined[:fit], imagined[fit:], worlds.gaussian)
        path = calibration.trajectory
        network = Bench(self.denoiser.denoise, path[:fit], path[fit:], worlds.gaussian)
        contest = self._contest(worlds, dreamer, calibration, self._paths(imagined), teleport)
        scale = contest.network.ground.scale
        tops = [teleport.ratio * f for f in (0.7, 1.0, 1.5)]
        choices, dreams = {}, []
        for n in settings.evaluations:
            guesses = first_guesses(imagined, n, tops, [scale * f for f in (0.1, 0.2, 0.4)])
            with self.progress.task(f"search for {n} evaluations", settings.world_trials + settings.network_trials + len(RIDGES)) as p:
                dream = search(world, guesses, settings.world_trials, advance=p.advance)
                best = search(network, [dream.nodes], settings.network_trials, steps=(2, 1), advance=p.advance)
                table = min(best, network.best_ridge(best.nodes), key=lambda f: f.error).program
                p.advance(len(RIDGES))
            with self.progress.task(f"other samplers of {n} evaluations", settings.closed_forms + len(settings.fits)) as p:
                usual = classic_programs(self.denoiser, worlds.gaussian, n, teleport.ratio)
                choices[n] = contest.choose(n, Proposals((table,), {}, calibration[:fit].keys), usual, p.advance)
            dreams.append(measure_program(replace(dream.program, name="fitted on the mixture"), "ours", dreamer.denoise, world.judge))
        return choices, dreams

    def _contest(self, worlds: Worlds, dreamer: Denoiser, calibration: Paths, imagined: Paths, teleport: Teleport) -> Contest:
        """Fits of few numbers are made on few of the paths that the table is fitted to."""
        settings, fit = self.settings, self.settings.fit
        ground = Ground(self.process, worlds.gaussian, worlds.mixture)
        network, world = (
            Calibration(denoiser, paths[: min(fit, _FEW)], ground, teleport.ratio, settings.world_trials, settings.seed)
            for denoiser, paths in ((self.denoiser, calibration), (dreamer, imagined))
        )
        return Contest(network, world, calibration[fit:], imagined[fit : fit + _SCREEN], settings.closed_forms, settings.fits)

    def _measure(
        self, worlds: Worlds, choices: dict[int, Choice], truth: Trajectory, teleport: Teleport
    ) -> tuple[list[Candidate], dict[tuple[str, int], Callable[[Tensor], Tensor]]]:
        budgets, denoise = self.settings.evaluations, self.denoiser.denoise
        candidates: list[Candidate] = []
        with self.progress.task("our programs on unseen noise", len(budgets)) as p:
            for n in budgets:
                chosen, *others = choices[n].programs
                # whatever was chosen is what we stand for
                candidates.append(measure_program(chosen, "ours", denoise, truth))
                programs = classic_programs(self.denoiser, worlds.gaussian, n, teleport.ratio)
                candidates += [measure_program(c, family_of(c), denoise, truth) for c in others]
                candidates += [measure_program(c, "classic", denoise, truth) for c in programs if c.name not in {o.name for o in others}]
                p.advance()
        with self.progress.task("diffusers' schedulers on the same noise", len(budgets) * len(PEERS)) as p:
            peers, samplers = measure_peers(self.denoiser, truth, budgets, p.advance)
        return candidates + peers, samplers

    def _quality(
        self,
        candidates: list[Candidate],
        samplers: dict[tuple[str, int], Callable[[Tensor], Tensor]],
        choices: dict[int, Choice],
        truth: Trajectory,
    ) -> tuple[list[Candidate], dict[str, Any], dict[str, Tensor]]:
        """Distances to held-out data for our program and the best peer of each budget, and pictures from the same noise."""
        n, test = self.settings.quality, self.data.test
        pictures = {"data": test[:_PICTURES], "reference": truth.end[:_PICTURES]}
        unit = truth.states[0][:_PICTURES] / self.process.prior_std
        fresh = noise(self.settings.seed + 1, max(n, 1), self.event).draw(0)
        floor = {}
        with self.progress.task("samples against held-out data", 2 * len(self.settings.evaluations)) as p:
            if n:
                floor = {"reference": distance_to(test, truth.end), "training data": distance_to(test, self.data.train[:n])}
            for budget in self.settings.evaluations:
                for family in _SHOWN:
                    program = choices[budget].chosen.program
                    rivals = [c for c in candidates if family == "diffusers" or (c.name == program.name and c.evaluations == budget)]
                    best = best_of(rivals, budget, family)
                    p.advance()
                    if best is None:
                        continue
                    walk = self._walker(program) if family == "ours" else samplers[best.name, best.evaluations]
                    pictures[f"{best.name}, {best.evaluations} evaluations"] = walk(unit)
                    if n:
                        done = replace(best, quality=distance_to(test, torch.cat([walk(c) for c in torch.split(fresh, 256)])))
                        candidates = [done if c is best else c for c in candidates]
        return candidates, floor, pictures

    def _walker(self, program: Program) -> Callable[[Tensor], Tensor]:
        sampler = Sampler(self.denoiser, program, self.event)
        return lambda unit: sampler.sample(len(unit), start=self.process.prior_sample(unit))

    def _recipe(self, worlds: Worlds, choices: dict[int, Choice], candidates: Sequence[Candidate]) -> Recipe:
        """All budgets, and as the default the smallest whose error is within tolerance (else the one of least error)."""
        programs = {n: choice.chosen.program for n, choice in choices.items()}
        ours = {c.evaluations: c.error for n, p in programs.items() for c in candidates if (c.evaluations, c.name) == (n, p.name)}
        within = [n for n, e in ours.items() if e.value <= self.settings.tolerance]
        default = min(within) if within else min(ours, key=lambda n: ours[n].value)
        evidence = {n: {"error": e.value, "standard_error": e.standard_error} for n, e in ours.items()}
        return Recipe(self.event, programs, default, worlds.gaussian, evidence=evidence)
