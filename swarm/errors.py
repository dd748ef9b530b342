"""Every error this package raises on purpose.

SwarmError
├── InputError            what the user gave is wrong; nothing was run (CLI exit code 2)
│   ├── ConfigError         a file or setting: names file, key, value, rule and remedy
│   ├── GraphError          a graph that breaks a rule
│   │   ├── CycleError
│   │   ├── EndNodeError      no end node, or more than one
│   │   ├── DuplicateError    two agents, or two edges, that are the same
│   │   ├── UnknownAgentError an edge to an agent that is not there
│   │   └── TooLargeError
│   ├── PoolError           experts that are missing, unknown or do not fit
│   ├── TaskError           splits, examples, scorers
│   └── StoreURLError       a store that can't be opened, or isn't a store
│       └── StoreVersionError the store was written by a newer version
├── MissingPackageError   an optional package is needed; names the pip line
├── EngineError           an engine failed
│   ├── RequestError        one request failed; the others of its batch are well
│   └── OutOfMemoryError    not even one request fits
├── StoreError            the store failed while in use (disk full, locked, gone)
│   └── BusyError           another process is running this job
├── BudgetError           a limit ended the job before anything was scored
└── DivergenceError       a replay did not come out as recorded
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SwarmError(Exception):
    """The root: catch this to catch everything this package raises on purpose."""


class InputError(SwarmError):
    """Bad input, found before anything was run."""


class ConfigError(InputError):
    """A file, key or setting that can't be used."""


class GraphError(InputError):
    """A graph that breaks a rule of `swarm.graphs.AgentGraph`."""


class CycleError(GraphError):
    """The edges form a cycle."""


class EndNodeError(GraphError):
    """There is no end node, or more than one."""


class DuplicateError(GraphError):
    """Two agents share a name, or an edge is given twice."""


class UnknownAgentError(GraphError):
    """An edge names an agent that is not in the graph."""


class TooLargeError(GraphError):
    """More agents than a graph may have."""


class PoolError(InputError):
    """An expert that is unknown, missing its weights, or made for another base."""


class TaskError(InputError):
    """Splits, examples or a scorer that can't be used."""


class StoreURLError(InputError):
    """The store can't be opened, or what is there is not a store."""


class StoreVersionError(StoreURLError):
    """The store was written by a newer version of this package."""


class MissingPackageError(SwarmError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package `{package}`: pip install 'agent-swarm[{extra}]'"
        )


class EngineError(SwarmError):
    """An engine failed."""


class RequestError(EngineError):
    """One request failed; the others of its batch are not affected."""


class OutOfMemoryError(EngineError):
    """The device has no room, not even for a batch of one."""


class StoreError(SwarmError):
    """The store failed while in use."""


class BusyError(StoreError):
    """Another process is running this job."""


class BudgetError(SwarmError):
    """A limit of a job is reached. Seen by users only if nothing was scored before."""

    def __init__(self, limit: str, allowed: float, used: float) -> None:
        super().__init__(
            f"`{limit}` is {allowed:g}: after {used:.4g} there is no room for another request, and "
            "nothing is scored yet: raise it and run the same again; all answers so far are kept"
        )
        self.limit = limit
        """Its name: ``max_calls``."""


class DivergenceError(SwarmError):
    """A replay did not come out as recorded."""

    def __init__(
        self,
        message: str,
        *,
        trace: int | None = None,
        agent: str | None = None,
        expected: str = "",
        got: str = "",
    ) -> None:
        super().__init__(message)
        self.trace = trace
        """Number of the trace in the run that was replayed; None: it is not in any one trace."""
        self.agent = agent
        """The agent whose prompt or answer it is; None: it is not any one agent's."""
        self.expected = expected
        """What was recorded."""
        self.got = got
        """What came out instead."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean `x`?)"``, or an empty string if nothing known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""
