"""What was run, recorded: runs, evaluations, traces, calls, batches and the answers they share."""

from swarm.store.records import (
    AnswerRecord,
    BatchRecord,
    BatchView,
    CallView,
    EvaluationRecord,
    EvaluationView,
    ExpertRecord,
    QuestionRecord,
    RunKind,
    RunStatus,
    RunView,
    TraceView,
)
from swarm.store.store import Store

__all__ = [
    "AnswerRecord",
    "BatchRecord",
    "BatchView",
    "CallView",
    "EvaluationRecord",
    "EvaluationView",
    "ExpertRecord",
    "QuestionRecord",
    "RunKind",
    "RunStatus",
    "RunView",
    "Store",
    "TraceView",
]
