"""For all tests: the package's builtin checkpoints are made anew, not read from a user's cache."""

import os
import signal

import pytest

# Asserts outside test modules say what they compared only when asked to.
pytest.register_assert_rewrite("tests.contract", "tests.plugins")


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A suite that a shell started in the background ignores Ctrl+C; what is tested must not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def fresh_cache(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMTEACH_CACHE", str(shared / "cache"))
        yield
