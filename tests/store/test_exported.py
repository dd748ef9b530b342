import swarm.store


def test_what_the_package_exports():
    assert swarm.store.__all__ == [
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
    assert all(hasattr(swarm.store, name) for name in swarm.store.__all__)
