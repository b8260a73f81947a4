r"""Our programs as a scheduler of `diffusers`.

A scheduler is asked for times, and then told the network's answer at one after the other: a program is walked from outside. The state
between calls is `x = alpha x_0 + sigma eps` of the process; `timesteps` holds one entry an evaluation, so a solver of two stages has two a
step, and a program that the closed form carries to its first evaluation (a teleport) has its own ways, see `ProgramScheduler`.

Importing this module needs `diffusers`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sfumato.denoiser import to_data
from sfumato.errors import ArgumentError, RecipeError
from sfumato.exact import Gaussian
from sfumato.integrations.steps import Grid, program_over, steps
from sfumato.integrations.training import VIEWS, Training, beta_table, one_of, same_process, settings_for, settings_of
from sfumato.learn.training.law_file import read_law, write_law
from sfumato.noise import FlowMatching, ScalarProcess, over_events
from sfumato.sample import PRESETS, Program, Solver, Walk

STATISTICS = "scheduler_statistics.safetensors"
"""Beside the scheduler's configuration: the law over whose modes its programs run."""


@dataclass
class ProgramSchedulerOutput(SchedulerOutput):  # type: ignore[misc]
    """What a step returns.

    Arguments:
        prev_sample: the state at which the network is asked next, or the sample after the last step.
        pred_original_sample: the clean data predicted at this step.
    """

    pred_original_sample: Tensor | None = None


class ProgramScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Any solver, or the programs of a recipe, as a scheduler for pipelines.

    Arguments:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas: the table of betas that the network was trained on.
        prediction_type: see the module.
        variance_type: "learned" or "learned_range" where the network answers with a variance as well, which is not used.
        solver: a name in `sfumato.sample.PRESETS`; `num_inference_steps` are its steps.
        grid: see `Grid`.
        clip_sample, clip_sample_range: keep predicted clean data within `[-range, range]`.
        programs: by number of evaluations, what `Program.to_dict` wrote; `num_inference_steps` then is a number of evaluations. None for
            the solver.
        teleport: how a program is taken to its first evaluation by the closed form. "scale": by `scale_model_input`, in pipelines that
            call it. "evaluate": in a first entry of `timesteps` whose answer is not used, at one evaluation more, in all others.

    Raises:
        ArgumentError: an unknown solver, grid, prediction type, schedule of betas or way to teleport.
        RecipeError: programs of another process.
    """

    _compatibles: ClassVar[list[str]] = [e.name for e in KarrasDiffusionSchedulers]
    _walk: Walk | None
    _index: int | None
    _given: Tensor | None
    _draws: _Draws
    _program_now: Program
    _teleports: bool

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Any = None,
        prediction_type: str = "epsilon",
        variance_type: str | None = None,
        solver: str = "dpm-solver++-2m",
        grid: str = "log-snr",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        programs: dict[str, Any] | None = None,
        teleport: str = "evaluate",
    ) -> None:
        one_of("prediction_type", prediction_type, VIEWS)
        one_of("solver", solver, PRESETS)
        one_of("grid", grid, get_args(Grid))
        one_of("teleport", teleport, ("evaluate", "scale"))
        if prediction_type == "flow_prediction":
            self.process: ScalarProcess = FlowMatching()
        else:
            self.process = beta_table(num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas)
            self.betas = torch.tensor(self.process.betas)
        self.training = Training(self.process, num_train_timesteps if trained_betas is None else len(trained_betas), VIEWS[prediction_type])
        self.law: Gaussian | None = None
        self.programs: dict[int, Program] = {}
        self._solver: Solver = PRESETS[solver]
        self._begin: int | None = None
        self._times: tuple[float, ...] = ()
        self.num_inference_steps: int | None = None
        self._use(self._program(10) if not programs else None)

    @classmethod
    def of(cls, programs: Mapping[int, Program], pipeline: Any = None) -> ProgramScheduler:
        """The scheduler of programs by number of evaluations.

        Arguments:
            programs: over one process; spectral ones over one law.
            pipeline: the pipeline, or its scheduler alone, whose table of betas and prediction type are taken over; None for the programs'
                own process and a network that predicts noise (or velocity, for flow matching). Of a pipeline it is also seen whether it
                calls `scale_model_input`, see `teleport`.

        Raises:
            RecipeError: programs of another process than the pipeline's, or of several.
            ArgumentError: a scheduler that cannot be read, see `settings_of`.
        """
        scheduler = getattr(pipeline, "scheduler", pipeline)
        kept = settings_of(scheduler) if scheduler is not None else settings_for(next(iter(programs.values())).process)
        laws = {id(p.space): p.space for p in programs.values() if p.space is not None}
        if len(laws) > 1:
            raise RecipeError("programs", f"{len(laws)} laws", "programs over the modes of one law")
        scales = scheduler is not pipeline and "scale_model_input" in inspect.getsource(type(pipeline).__call__)
        out = cls(**kept, programs={str(n): p.to_dict() for n, p in programs.items()}, teleport="scale" if scales else "evaluate")
        return out.with_law(next(iter(laws.values()), None))

    def with_law(self, law: Gaussian | None) -> ProgramScheduler:
        """The same scheduler, its programs read over the modes of a law (None for scalar programs).

        Raises:
            RecipeError: programs over other modes, or of another process than the scheduler's.
        """
        self.law = law
        for n, data in (self.config.programs or {}).items():
            spectral = isinstance(data, Mapping) and data.get("modes") != 1
            if spectral and law is None:
                raise RecipeError(STATISTICS, "nothing", "the law of a spectral program", "Keep it beside the scheduler's configuration.")
            program = Program.from_dict(dict(data), law if spectral else None)
            if not same_process(program.process, self.process):
                raise RecipeError(f"programs.{n}.process", program.process.kind, f"the scheduler's process, {self.process.kind}")
            self.programs[int(n)] = program
        return self

    # what pipelines read -------------------------------------------------------------------------------------------------------------

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the state that sampling starts from."""
        return self.process.prior_std

    @property
    def order(self) -> int:
        """Entries of `timesteps` that one step takes."""
        evaluations, steps = len(self.timesteps), max(len(self._times) - 1, 1)
        return 1 if self.programs else max(1, round(evaluations / steps))

    @property
    def step_index(self) -> int | None:
        """How many entries of `timesteps` were answered; None before the first step."""
        return self._index

    @property
    def begin_index(self) -> int | None:
        """The entry of `timesteps` to begin at, if one was set."""
        return self._begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at an entry of `timesteps`, for a state that has the noise of that time (image to image)."""
        self._begin = begin_index

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int | float] | Tensor | None = None,
        sigmas: Sequence[int | float] | Tensor | None = None,
    ) -> None:
        """Choose the program.

        Arguments:
            num_inference_steps: steps of the solver, or evaluations of one of the recipe's programs.
            device: where `timesteps` shall be.
            timesteps: the network's times at which steps begin, falling; the last step ends in clean data.
            sigmas: the same as noise-to-signal ratios (for flow matching, as `sigma`), with or without a last 0.

        Raises:
            ArgumentError: not exactly one of the three, times that do not fall, or a number of evaluations that no program has.
        """
        given = [v is not None for v in (num_inference_steps, timesteps, sigmas)]
        if sum(given[1:]) > 1 or not any(given):
            raise ArgumentError("num_inference_steps, timesteps, sigmas", given, "a number of steps, or timesteps, or sigmas")
        if timesteps is not None:
            program = self._compile((*(self.training.time(float(t)) for t in timesteps), 0.0))
        elif sigmas is not None:
            program = self._compile((*(self.training.time_of_sigma(float(s)) for s in sigmas if float(s) > 0), 0.0))
        else:
            program = self._program(int(num_inference_steps or 0))
        self._use(program, device)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The state at which the network is to be asked: the sample itself, or, before the first evaluation of a teleporting program, what
        the closed form makes of the start."""
        if self._index is not None or not self._teleports or self.config.teleport != "scale":
            return sample
        self._scaled = True
        return self._begin_walk(self._program_now, sample).x.to(sample.dtype)

    def step(
        self,
        model_output: Tensor,
        timestep: int | float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> ProgramSchedulerOutput | tuple[Tensor, Tensor | None]:
        """The state at which the network is asked next, from its answer at this one.

        Arguments:
            model_output: the network's answer `(batch, *event)`, see `prediction_type`.
            timestep: an entry of `timesteps`; any other starts a new walk at the nearest entry.
            sample: the state `(batch, *event)`.
            generator: of the noise of stochastic programs; a list has one per sample.
            return_dict: whether to return a `ProgramSchedulerOutput`, or `(prev_sample, pred_original_sample)`.

        Raises:
            ArgumentError: a walk that begins in the middle of a recipe's program, a time at which the answer determines no data, or a
                teleporting program whose first state the network was not given.
        """
        index = self._place(timestep)
        if self._teleports and index == 0:
            if self.config.teleport == "evaluate":
                return self._carry(sample, return_dict)
            if not self._scaled:
                hint = 'Use teleport="evaluate", at one evaluation more.'
                raise ArgumentError("scale_model_input", "no call before the first step", "a pipeline that calls it", hint)
        walk = self._walk
        if walk is None or index != self._index:
            walk = self._start(sample, index)
            self._walk = walk
        elif sample is not self._given:
            walk.replace(sample.to(walk.x.dtype))
        self._draws.generator = generator
        data = self._data(model_output.to(walk.x.dtype), walk.x, walk.plan.program.times[walk.node])
        walk.tell(data)
        self._index = index + 1
        if walk.advance() is None:
            self._walk = None
        self._given = walk.x.to(sample.dtype)
        data = data.to(sample.dtype)
        return ProgramSchedulerOutput(self._given, data) if return_dict else (self._given, data)

    def _carry(self, sample: Tensor, return_dict: bool) -> ProgramSchedulerOutput | tuple[Tensor, Tensor | None]:
        """The state at which the network is asked first."""
        self._walk, self._index = self._begin_walk(self._program_now, sample), 1
        self._given = self._walk.x.to(sample.dtype)
        return ProgramSchedulerOutput(self._given) if return_dict else (self._given, None)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`alpha x_0 + sigma noise` at the network's times `timesteps`, a scalar or one per sample."""
        t = torch.tensor([self.training.time(float(v)) for v in timesteps.reshape(-1)], dtype=torch.float64)
        t = t.expand(len(original_samples)) if len(t) == 1 else t
        alpha, sigma = self.process.levels(t)
        return over_events(alpha, original_samples) * original_samples + over_events(sigma, noise) * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise`, as flow-matching pipelines call it."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep))

    # files ---------------------------------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write the configuration, and the law of spectral programs beside it."""
        if self.law is not None:
            write_law(Path(save_directory) / STATISTICS, self.law)
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = None, subfolder: str | None = None, **kwargs: Any) -> Any:
        """Read a scheduler from a folder, or from a repository of the hub.

        Raises:
            RecipeError: programs that cannot be used, or without the law they need.
        """
        made = super().from_pretrained(pretrained_model_name_or_path, subfolder, **kwargs)
        scheduler = made[0] if isinstance(made, tuple) else made
        if scheduler.config.programs:
            scheduler.with_law(read_law(_file(pretrained_model_name_or_path, subfolder, kwargs)))
            scheduler._use(None)
        return made

    # the walk ------------------------------------------------------------------------------------------------------------------------

    def _program(self, n: int) -> Program:
        """The program of `num_inference_steps`."""
        if self.config.programs and not self.programs:
            self.with_law(self.law)
        if self.programs:
            if n not in self.programs:
                known = ", ".join(map(str, sorted(self.programs)))
                raise ArgumentError("num_inference_steps", n, f"one of the recipe's numbers of evaluations, {known}")
            self._times = self.programs[n].times
            return self.programs[n]
        return self._compile(steps(self.training, self.config.grid, n))

    def _compile(self, times: tuple[float, ...]) -> Program:
        program, self._times = program_over(self._solver, self.training, times)
        return program

    def _use(self, program: Program | None, device: Any = None) -> None:
        """Make a program the present one, and forget the walk."""
        self._walk, self._index, self._given = None, None, None
        self._draws = _Draws(torch.zeros(0))
        self._begin, self._scaled, self._teleports = None, False, False
        if program is None:
            self.timesteps, self.sigmas = torch.zeros(0), torch.zeros(0)
            return
        self._program_now = program
        self.num_inference_steps = len(self._times) - 1
        self._teleports = program.evaluated[:1] != (0,)
        first = [program.times[0]] if self._teleports and self.config.teleport == "evaluate" else []
        nodes = torch.tensor([*first, *(program.times[j] for j in program.evaluated)], dtype=torch.float64)
        self._nodes = nodes
        self.timesteps = self.training.index(nodes).to(torch.float32).to(device)
        self.sigmas = torch.cat([self.training.sigmas(nodes), torch.zeros(1, dtype=torch.float64)]).to(torch.float32)

    def _place(self, timestep: int | float | Tensor) -> int:
        """The entry of `timesteps` that a step is for."""
        if self._index is not None and self._index < len(self.timesteps) and float(self.timesteps[self._index]) == float(timestep):
            return self._index
        if self._index is None and self._begin is not None:
            return self._begin
        return int((self.timesteps.cpu() - float(timestep)).abs().argmin())

    def _start(self, sample: Tensor, index: int) -> Walk:
        """A walk whose present node is evaluation number `index`."""
        program = self._program_now
        if index and self.programs:
            hint = "Its programs are fitted as a whole: begin at noise, or use a solver."
            raise ArgumentError("timestep", float(self.timesteps[index]), "the first of a recipe's timesteps", hint)
        if index:
            start = float(self._nodes[index])
            program = self._solver.compile(self.process, (start, *(t for t in self._times if t < start)))
        return self._begin_walk(program, sample)

    def _begin_walk(self, program: Program, sample: Tensor) -> Walk:
        """A walk from a state, at its first evaluation; half precision is for the network alone."""
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        self._draws = _Draws(x)
        walk = Walk(program, x, self._draws)
        walk.advance()
        return walk

    def _data(self, output: Tensor, x: Tensor, t: float) -> Tensor:
        """The clean data that the network's answer stands for."""
        if self.config.variance_type in ("learned", "learned_range") and output.shape[1] == 2 * x.shape[1]:
            output = output[:, : x.shape[1]]
        data = to_data(output, self.training.view, x, t, self.process)
        limit = float(self.config.clip_sample_range)
        return data.clamp(-limit, limit) if self.config.clip_sample else data


class _Draws:
    """The noise of one walk, drawn as it is asked for by the generator of the present step."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.generator: Any = None

    def draw(self, j: int) -> Tensor:
        like = self.like
        out: Tensor = randn_tensor(like.shape, self.generator, like.device, like.dtype)
        return out


def _file(where: Any, subfolder: str | None, options: Mapping[str, Any]) -> Path:
    """Where the law is: in the folder, or fetched from the hub."""
    if Path(where).is_dir():
        return Path(where) / (subfolder or "") / STATISTICS
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    known = {key: options[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in options}
    try:
        return Path(hf_hub_download(str(where), STATISTICS, subfolder=subfolder, **known))
    except EntryNotFoundError:
        return Path(where) / STATISTICS
