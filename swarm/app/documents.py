"""What is recorded as JSON values, as `--json` prints them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swarm.agents.shortening import read as read_cuts
from swarm.store.loads import loads

if TYPE_CHECKING:
    from swarm.app.page import Page
    from swarm.errors import DivergenceError
    from swarm.graphs import AgentGraph
    from swarm.runtime.system import Call, Trace
    from swarm.store import BatchView, CallView, EvaluationView, RunView, TraceView

Document = dict[str, Any]


def print_json(document: Document | list[Document]) -> None:
    """The one thing a command prints on stdout under `--json`; ASCII, so that it can't do harm."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def graph_document(graph: AgentGraph) -> Document:
    found: Document = json.loads(graph.to_json())
    return found


def run_document(run: RunView) -> Document:
    return {
        "run": run.id,
        "kind": run.kind,
        "name": run.name,
        "status": run.status,
        "error": run.error,
        "parent": run.parent,
        "version": run.version,
        "created_at": run.created_at.isoformat(),
        "updated_at": run.updated_at.isoformat(),
        "settings": run.settings,
        "summary": run.summary,
    }


def evaluation_document(evaluation: EvaluationView) -> Document:
    return {
        "evaluation": evaluation.id,
        "split": evaluation.split,
        "score": evaluation.score,
        "questions": evaluation.size,
        "info": evaluation.info,
        "graph": graph_document(evaluation.graph),
    }


def failure_document(trace: TraceView) -> Document:
    return {
        "trace": trace.number,
        "question": trace.question.question,
        "gold": trace.question.gold,
        "answer": trace.answer,
        "score": trace.score,
        "error": trace.error,
    }


def page_document(page: Page) -> Document:
    return {
        **run_document(page.run),
        "status": page.status,
        "graph": None if page.graph is None else graph_document(page.graph),
        **({} if page.policy is None else {"policy": dict(page.policy)}),
        "evaluations": [evaluation_document(evaluation) for evaluation in page.evaluations],
        "iterations": [vars(iteration) for iteration in page.iterations],
        "failed": page.failed,
        "failures": [failure_document(trace) for trace in page.failures],
    }


def divergence_document(run: int, error: DivergenceError) -> Document:
    return {
        "replayed": run,
        "same": False,
        "message": str(error),
        "trace": error.trace,
        "agent": error.agent,
        "expected": error.expected,
        "got": error.got,
    }


def trace_document(trace: TraceView, asked: Sequence[CallView] = ()) -> Document:
    """`asked`: what a policy asked about the question, to choose the graph."""
    document: Document = {
        "run": trace.run,
        "evaluation": trace.evaluation,
        **failure_document(trace),
        "position": trace.position,
        "example": trace.question.example_id,
        "graph": graph_document(trace.graph),
        "calls": [_call(trace.graph, call) for call in in_order(trace)],
    }
    return (
        {**document, "policy_calls": [_call(trace.graph, call) for call in asked]}
        if asked
        else document
    )


def in_order(trace: TraceView) -> list[CallView]:
    """The calls in the order in which agents can answer."""
    by_name = {call.agent.name: call for call in trace.calls}
    return [by_name[agent.name] for agent in trace.graph.order]


def shortened(graph: AgentGraph, call: CallView) -> list[Document]:
    """What was left out of a call's prompt so that it fits: of whose response how many characters
    are left at its end, of how many. Empty, too, for a record that can't be read."""
    if call.shortened is None:
        return []
    predecessors = graph.predecessors(call.agent.name)
    try:
        cuts = read_cuts(call.shortened)
    except ValueError:
        return []
    return [
        {"agent": predecessors[number - 1].name, "kept": kept, "of": of}
        for number, kept, of in cuts
        if number <= len(predecessors)
    ]


def _call(graph: AgentGraph, call: CallView) -> Document:
    document: Document = {
        "agent": call.agent.name,
        "expert": call.agent.expert,
        "role": call.agent.role,
        "cached": call.cached,
        "error": call.error,
        "shortened": shortened(graph, call),
    }
    if (answer := call.answer) is not None:
        usage = answer.response.usage
        document |= {
            "prompt": [message._asdict() for message in answer.messages],
            "response": answer.response.text,
            "finish": answer.response.finish,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "ms": answer.response.seconds * 1000,
            "batch": answer.batch,
        }
    return document


def answer_document(trace: Trace) -> Document:
    """One question asked of a system, outside of any run."""
    document = {
        "question": trace.question,
        "answer": trace.text,
        "graph": graph_document(trace.graph),
        "calls": [_answered(call) for call in trace.calls],
    }
    if trace.routing:
        document["policy_calls"] = [_answered(call) for call in trace.routing]
    return document


def _answered(call: Call) -> Document:
    return {
        "agent": call.agent.name,
        "expert": call.agent.expert,
        "role": call.agent.role,
        "cached": call.cached,
        "error": call.error,
        "prompt": [message._asdict() for message in call.prompt],
        "response": call.response and call.response.text,
        "prompt_tokens": call.response and call.response.usage.prompt_tokens,
        "completion_tokens": call.response and call.response.usage.completion_tokens,
        "ms": call.response and call.response.seconds * 1000,
        "shortened": [cut._asdict() for cut in call.shortened],
    }


def batches_document(found: Sequence[BatchView]) -> Document:
    return {
        "batches": [batch_document(view) for view in found],
        "totals": loads(found).as_dict(),
    }


def batch_document(view: BatchView) -> Document:
    batch = view.batch
    return {
        "batch": view.id,
        "wave": batch.wave,
        "base": batch.base,
        "experts": list(batch.experts),
        "requests": batch.requests,
        "prompt_tokens": batch.prompt_tokens,
        "completion_tokens": batch.completion_tokens,
        "seconds": batch.seconds,
        "load_seconds": batch.load_seconds,
        "loaded": batch.loaded,
        "load_bytes": batch.load_bytes,
        "prefetched": batch.prefetched,
        "evicted": list(batch.evicted),
        "evict_seconds": batch.evict_seconds,
        "seedless": batch.seedless,
        "started_at": batch.started_at.isoformat(),
    }
