"""Adapters to other libraries, imported lazily."""

from __future__ import annotations

from sfumato.integrations.diffusers_peers import PEERS, Peer, run_peer, scheduler_process

__all__ = ["PEERS", "Peer", "run_peer", "scheduler_process"]
