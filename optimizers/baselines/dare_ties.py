"""DARE-TIES (arXiv 2311.03099, 2306.01708): one expert, merged by signs that most agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from swarm.agents import weights
from swarm.agents.expert import Pool
from swarm.agents.merge import Weights, check_compatible
from swarm.agents.mixing import Mixer
from swarm.agents.ties import export_ties, ties
from swarm.errors import PoolError
from swarm.graphs.topologies import single
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, BaselineSettings, Candidate, Score
from swarm.tasks import Task


class DareTiesSettings(BaselineSettings):
    """The knobs of `DareTies`; see `swarm.agents.ties`."""

    drop: float = Field(0.5, ge=0, lt=1)
    """p of DARE; 0 leaves TIES alone."""
    keep: float = Field(0.2, gt=0, le=1)
    """k of TIES; 1 leaves out its trim, as where DARE takes its place."""
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    """λ of TIES."""
    seed: int = Field(0, ge=0)
    base: str | None = None
    """The folder of the model that whole models were trained from; None for adapters."""
    folder: str = "dare_ties"
    """Where the merged weights are written: to a folder in it that is named after what they are."""


class DareTies(Baseline):
    """All experts merged into one; prompt, sampling and the like are those of the first."""

    name: ClassVar[str] = "dare_ties"
    _type = DareTiesSettings
    _settings: DareTiesSettings

    def check(self, pool: Pool) -> None:
        super().check(pool)
        sources, base = self._weights(pool)
        ties(sources, [], base=base)

    def workload(self, pool: Pool) -> Workload:
        whole = super().workload(pool)
        return replace(whole, agents=whole.agents[:1])

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        how = self._settings
        sources, base = self._weights(pool)
        folder = self._folder(sources, base)
        if not folder.exists():
            export_ties(
                sources,
                folder,
                drop=how.drop,
                keep=how.keep,
                scale=how.scale,
                seed=how.seed,
                base=base,
            )
        name = "dare_ties"
        while name in pool:
            name += "'"
        first = next(iter(pool.values()))
        merged = first.model_copy(update={"name": name, sources[0].kind: str(folder)})
        roles = pool.roles.values()
        candidate = Candidate(
            single(name, role=how.role), Pool([merged], name=pool.name, roles=roles)
        )
        await score([candidate])
        return candidate

    def _weights(self, pool: Pool) -> tuple[Sequence[Weights], Weights | None]:
        """What is merged, and the base.

        Raises:
            PoolError: experts without weights in folders, or that do not fit together.
        """
        sources = Mixer(pool).sources
        if not sources:
            raise PoolError("experts that are scripted have no weights that could be merged")
        if self._settings.base is None:
            return sources, None
        folders = [*(str(source.folder) for source in sources), self._settings.base]
        names = [*(f"expert `{name}`" for name in pool), "`base`"]
        *sources, base = check_compatible(folders, names)
        return sources, base

    def _folder(self, sources: Sequence[Weights], base: Weights | None) -> Path:
        how = self._settings
        numbers = json.dumps([how.drop, how.keep, how.scale, how.seed])
        digest = hashlib.blake2b(numbers.encode(), digest_size=8)
        for source in [*sources, *([base] if base else [])]:
            digest.update(weights.folder_digest(source.folder))
        return Path(how.folder).resolve() / digest.hexdigest()
