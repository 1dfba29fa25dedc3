"""A program in another Python environment that answers requests through pipes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


class Worker:
    """A worker script in a separate process.

    Args:
        python: the Python interpreter of its environment.
        script: name of the script in this folder.
        files: paths of files, its arguments.
    """

    def __init__(self, python: str, script: str, *files: Path):
        self.script, pipe = script, subprocess.PIPE
        command = [python, Path(__file__).parent / script, *files]
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, *request) -> dict:
        """Send a request of words, and return the answer, a line of JSON."""
        print(*request, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(
                f"{self.script} ended without an answer: run it by hand to see why; its Python "
                "must have the packages that it imports"
            )
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
