"""Launches that skip the imports, which cost more than most of the runs that are tested.

One process has everything imported and does nothing; each launch is a fork of it that becomes
`python -m MODULE ARGUMENTS`. What is decided while importing (ranks, offline switches) is that
process's, so a launch under a launcher, or one that is to be killed, is started cold.
"""

import json
import os
import runpy
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HEAVY = (
    "vlmteach.runner",
    "vlmteach.micro_fit",
    "vlmteach.methods",
    "vlmteach.reasoners.wan",
    "vlmteach.decoders.taehv",
    "vlmteach.teachers.qwen_vl",
    "benchmarks.sweep",
)


class Warm:
    """The process that launches are forked from."""

    def __init__(self) -> None:
        self._socket, its = socket.socketpair()
        command = [sys.executable, "-m", "tests.integration.warm", str(its.fileno())]
        with its:
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[its.fileno()])

    def run(
        self, module: str, words: list[str], environment: dict[str, str], folder: Path = ROOT
    ) -> tuple[int, str]:
        """Runs `python -m module words` in a folder; its exit code and all it wrote."""
        (out, its_out), (status, its_status) = os.pipe(), os.pipe()
        request = json.dumps([module, words, environment, str(folder)]).encode()
        socket.send_fds(self._socket, [request], [its_out, its_status])
        os.close(its_out)
        os.close(its_status)
        with open(out) as written, open(status) as ended:
            output = written.read()
            return os.waitstatus_to_exitcode(int(ended.read())), output

    def close(self) -> None:
        """Ends it."""
        self._socket.close()
        self._process.wait()


def serve(connection: socket.socket) -> None:
    """Forks a launch for each request until the other side closes; in the launch, runs it."""
    for module in HEAVY:
        import_module(module)
    while True:
        request, fds, _, _ = socket.recv_fds(connection, 2**20, 2)
        if not request:
            os._exit(0)
        launch = os.fork()
        if launch == 0:
            break
        os.close(fds[0])
        _, status = os.waitpid(launch, 0)
        os.write(fds[1], str(status).encode())
        os.close(fds[1])
    connection.close()
    os.close(fds[1])
    os.setsid()
    os.dup2(fds[0], 1)
    os.dup2(fds[0], 2)
    os.close(fds[0])
    module, words, environment, folder = json.loads(request)
    os.chdir(folder)
    sys.path.insert(0, folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *words]
    sys.modules.pop(module, None)  # imported by another; as a command it is read anew
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
