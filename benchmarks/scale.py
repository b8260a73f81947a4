"""Statistics and Gaussian parts of data that do not fit: 50,000 images of 3x64x64, rank 256, and the report on a model of them.

The images are synthetic: smooth random fields (512 cosine modes with a power-law spectrum, seeded) with a little white noise, written to a
float32 `.npy` that the library maps. Each part runs in a process of its own, whose peak of memory of its own (not the pages of the mapped
file, which the system may drop) is read from the kernel while it runs.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.figure import Figure, Row, at_most
from sfumato.exact.spectral.basis import cosine_matrix

_GIGABYTE = 2**30
_STATISTICS = """
import json, sys, time
import torch
from sfumato.data import load
from sfumato.exact import fit_gaussian
from sfumato.noise import EDM
start = time.perf_counter()
data = load(sys.argv[1])
law = fit_gaussian(data.batches(1000), int(sys.argv[2]))
fitted = time.perf_counter() - start
x = data.train[:256].clone()
process = EDM()
t = process.time_of_ratio(1.0)
law = law.to(torch.float32)
start = time.perf_counter()
law.denoiser(process).denoise(x, t)
law.flow(process, 1.0, t)(x)
values = law.covariance.eigenvalues
print(json.dumps({"fit": fitted, "use": time.perf_counter() - start, "leading": values[:5].tolist()}))
"""
_REPORT = """
import sys
from sfumato.cli import main
main(["explain", "--data", sys.argv[1], "--only", "gaussian,teleport,linear", "--steps", "5", "--out", sys.argv[2]])
"""


def measure(quick: bool = False) -> Figure:
    n, side, rank = (3000, 32, 32) if quick else (50_000, 64, 256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        spectrum = write_images(path, n, side)
        said, seconds, peak = _run(_STATISTICS, path, rank)
        found = json.loads(said)
        _, report_seconds, report_peak = _run(_REPORT, path, Path(folder) / "out")
    off = max(abs(a / b - 1) for a, b in zip(found["leading"], spectrum[:5], strict=True))
    details = f"{n:,} images of 3x{side}x{side}, rank {rank}"
    rows = [
        at_most("statistics: seconds", seconds, 600, details),
        at_most("statistics: peak memory of its own, GB", peak / _GIGABYTE, 4),
        at_most("five leading variances: largest relative error", off, 5 * math.sqrt(2 / n), "5 standard errors of a variance"),
        Row("Gaussian denoiser and flow of 256 images: seconds", found["use"]),
        at_most("report on a model of them: seconds", report_seconds, 600, "5 training steps, then the Gaussian panels"),
        at_most("report: peak memory of its own, GB", report_peak / _GIGABYTE, 4),
    ]
    return Figure(rows, {"threads": torch.get_num_threads()})


def write_images(path: Path, n: int, side: int) -> list[float]:
    """Write the images; the exact leading variances, largest first."""
    frequencies = torch.cartesian_prod(torch.arange(13), torch.arange(13)).float()
    modes = [(c, int(i), int(j)) for c in range(3) for i, j in frequencies.tolist() if i + j < 18 and max(i, j) < side]
    variance = torch.tensor([side**2 * 0.3 ** (c + 1) / (1 + i + 1.3 * j) ** 2.5 for c, i, j in modes], dtype=torch.float64)
    cosines = cosine_matrix(side)
    columns = torch.stack([torch.outer(cosines[i], cosines[j]).flatten() for _, i, j in modes]).float()
    images = np.lib.format.open_memmap(path, "w+", np.float32, (n, 3, side, side))
    noise = 0.05
    for first in range(0, n, 1000):
        generator = torch.Generator().manual_seed(first)
        rows = min(1000, n - first)
        amplitude = torch.randn(rows, len(modes), generator=generator) * variance.sqrt().float()
        out = noise * torch.randn(rows, 3, side**2, generator=generator)
        for c in range(3):
            mine = torch.tensor([k for k, mode in enumerate(modes) if mode[0] == c])
            out[:, c] += amplitude[:, mine] @ columns[mine]
        images[first : first + rows] = out.reshape(rows, 3, side, side).numpy()
    images.flush()
    return sorted((variance + noise**2).tolist(), reverse=True)


def _run(code: str, *arguments: object) -> tuple[str, float, int]:
    """What a Python process said, the seconds it took, and the peak of its anonymous memory."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        peak, status = 0, Path(f"/proc/{process.pid}/status")

        def watch() -> None:
            nonlocal peak
            while process.poll() is None:
                lines = status.read_text().splitlines() if status.exists() else []
                kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
                peak = max(peak, 1024 * kilobytes)
                time.sleep(0.05)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, complaint = process.communicate()
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"the process failed: {complaint[-2000:]}")
    return said, time.perf_counter() - start, peak
