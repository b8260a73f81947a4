"""What only a GPU can tell; without one every row says "not measured".

A CIFAR-size UNet (`DDPM++` of EDM, 55.7 million parameters, random weights) on a batch of 64, 20 steps of UniPC-2: what the sampler takes
beside the network; whether the loop waits for the device between steps (CUDA's own check for synchronisation, set to raise) and whether
the compiled network is one graph; bfloat16 weights under float64 coefficients; the rate of the denoiser of 50,000 points over two plain
matrix products.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.empirical import images
from benchmarks.figure import Figure, Row, at_least, at_most
from sfumato.denoise import EDMUNet, Preconditioned
from sfumato.exact import Empirical
from sfumato.noise import EDM
from sfumato.sample import PRESETS, Plan, karras, run
from sfumato.seeds import noise

CIFAR = {"family": "song", "width": 128, "multipliers": [2, 2, 2], "blocks": 4, "attention": [16]}
TINY = {"family": "song", "width": 16, "multipliers": [1], "blocks": 1, "attention": []}
STEPS = 20


def measure(quick: bool = False) -> Figure:
    """On the GPU; a quick run takes a tiny network on whatever device there is, to see that the harness itself works."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not quick:
        why = "no GPU here"
        names = ("sampler beside the network", "waits in the loop", "compiled network", "bfloat16 weights", "empirical denoiser")
        return Figure([Row(name, None, details=why) for name in names])
    model = Preconditioned(_alive(EDMUNet((3, 32, 32), TINY if quick else CIFAR)), EDM(80.0), 0.5).to(device).eval()
    x = 80 * noise(0, 4 if quick else 64, (3, 32, 32)).draw(0).to(device)
    plan = Plan.of(PRESETS["unipc-2-bh2"].compile(model.process, karras(model.process, STEPS)), x.dtype, device)
    with torch.no_grad():
        rows = [_overhead(model, plan, x), _waits(model, plan, x), _graph(model, x, quick), _half(model, plan, x)]
    return Figure([*rows, _empirical(device, 2_000 if quick else 50_000)])


def _alive(network: EDMUNet) -> EDMUNet:
    """Layers that start at zero would answer alike in every precision."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            if not bool(p.any()):
                p.copy_(0.02 * torch.randn(p.shape, generator=generator))
    return network


def _seconds(task: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    took = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def _overhead(model: Preconditioned, plan: Plan, x: Tensor) -> Row:
    times = [plan.program.times[j] for j in plan.program.evaluated]

    def network() -> None:
        for t in times:
            model.denoise(x, t)

    alone, whole = (_seconds(task, x.device) for task in (network, lambda: run(plan, model.denoise, x)))
    return at_most("sampler beside the network, share of its time", whole / alone - 1, 0.01, f"{whole:.3g} s, network alone {alone:.3g} s")


def _waits(model: Preconditioned, plan: Plan, x: Tensor) -> Row:
    """The denoiser is a stand-in, so that it is the loop alone that is looked at."""
    answer = torch.zeros_like(x)
    if x.device.type != "cuda":
        run(plan, lambda y, t: answer, x)
        return Row("waits for the device in the loop", None, details="no GPU here")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(plan, lambda y, t: answer, x)
        found, why = 0, "none raised"
    except RuntimeError as error:
        found, why = 1, str(error)[:100]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return at_most("waits for the device in the loop", found, 0, why)


def _graph(model: Preconditioned, x: Tensor, quick: bool) -> Row:
    """`fullgraph` refuses a network that breaks into several graphs."""
    if quick and x.device.type == "cpu":
        return Row("compiled network: graph breaks", None, details="compiled on a GPU only")
    network = torch.compile(model.network, fullgraph=True)
    c_noise = torch.zeros(len(x), device=x.device)
    try:
        apart = float((network(x, c_noise) - model.network(x, c_noise)).abs().max())
        eager, compiled = (_seconds(lambda f=f: f(x, c_noise), x.device) for f in (model.network, network))  # type: ignore[misc]
        return at_most("compiled network: graph breaks", 0, 0, f"{eager / compiled:.2f} times as fast, {apart:.2g} apart")
    except RuntimeError as error:
        return at_most("compiled network: graph breaks", 1, 0, str(error)[:100])


def _half(model: Preconditioned, plan: Plan, x: Tensor) -> Row:
    """The end points of bfloat16 weights against those of float32, both walked with float64 coefficients in float32 states."""
    full = run(plan, model.denoise, x)
    half = Preconditioned(model.network.to(torch.bfloat16), model.process, 0.5).to(x.device).eval()
    end = run(plan, lambda y, t: half.denoise(y, t), x)
    model.network.to(torch.float32)
    return Row("bfloat16 weights: relative distance of the end points", float((end - full).norm() / full.norm()), details="random weights")


def _empirical(device: torch.device, n: int) -> Row:
    points = images(n, 32).to(device)
    denoiser, k = Empirical(points).denoiser(EDM()), 1.0
    x = points[:256] + k * noise(1, 256, points.shape[1:]).draw(0).to(device)
    t = float(EDM().time_of_ratio(k))
    weights = torch.rand(256, n, device=device, generator=torch.Generator(device).manual_seed(0))
    ours = _seconds(lambda: denoiser.denoise(x, t), device)
    products = _seconds(lambda: (x @ points.T, weights @ points), device)
    row = at_least("empirical denoiser: rate over that of two products", products / ours, 0.7, f"{ours:.3g} s, products {products:.3g} s")
    return row if device.type == "cuda" else Row(row.name, row.value, row.target, None, f"{row.details}; on {device.type}")
