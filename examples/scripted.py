"""Experts that are plain functions: try a pipeline, or test yours, without any model.

python examples/scripted.py
"""

import swarm
from swarm.agents.messages import Messages
from swarm.graphs import debate


def optimist(messages: Messages) -> str:
    return "Surely 4."


def pedant(messages: Messages) -> str:
    return (
        "2 + 2 is 4, in the usual axioms." if "Previous" in messages[-1].content else "It depends."
    )


pool = swarm.Pool(
    [
        swarm.Expert.scripted("optimist", optimist),
        swarm.Expert.scripted("pedant", pedant),
        swarm.Expert.scripted("judge", lambda messages: "The answer is 4."),
    ]
)
task = swarm.Task.from_records("sums", "number", test=[{"question": "2 + 2?", "answer": "4"}])

system = swarm.System(debate(["optimist", "pedant"], 2, "judge"), pool)
trace = system.invoke(task.test[0].question)
for call in trace.calls:
    assert call.response is not None
    print(f"{call.agent.name:12} {call.response.text}")
print(system.evaluate(task).summary())
