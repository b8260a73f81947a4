"""Everything that commands import, imported once: their processes are forked from one that has done so."""

from __future__ import annotations

import importlib

import torch

for _name in (
    "accelerate",
    "sfumato.cli",
    "sfumato.console",
    "sfumato.subjects",
    "sfumato.tune.report",
    "sfumato.explain.report",
    "sfumato.integrations.hub",
    "sfumato.integrations.diffusers",
    "sfumato.integrations.edm_checkpoint",
    "PIL.Image",
    "sklearn.datasets",
    "torch._dynamo",
):
    importlib.import_module(_name)
torch.set_num_threads(1)
