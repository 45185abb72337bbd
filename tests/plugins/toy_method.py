"""A method from outside: plain samples until the teacher says Yes, three at most."""

from vlmteach.methods.base import Resources, Work
from vlmteach.types import Decision

TRIES = 3


class FirstYes:
    """Candidate after candidate, each over the one before."""

    name = "first_yes"
    adapts = False

    def __init__(self, resources: Resources) -> None:
        self.threshold = resources.config.fit.threshold

    def solve(self, work: Work) -> Decision:
        queries, problem = work.queries(), work.pose()
        number, loss = 0, float("inf")
        for number in range(TRIES):
            with work.stage("sample"):
                frames = work.sample(work.candidate(problem, number), "clip")
            loss = work.read(queries, frames, number).loss
            if loss <= self.threshold:
                break
        return Decision(query_source=queries.source, candidate=number, kept_loss=loss)
