"""Adapters to other libraries, imported lazily."""

from __future__ import annotations

from sfumato.integrations.aliases import ALIASES, Alias, alias
from sfumato.integrations.diffusers_peers import PEERS, Peer, run_peer, scheduler_process

__all__ = ["ALIASES", "PEERS", "Alias", "Peer", "alias", "run_peer", "scheduler_process"]
