"""Sides that must not share a process: each compiles its jobs in its own, one at a time runs one."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


class Side:
    """A process that compiles its jobs and then runs one where it is told to.

    Args:
        script: name of a file in this folder that calls `serve`.
        name: what the side is called.
        arguments: dict, given to the script as JSON.
        switches: dict of environment variables.
    """

    def __init__(self, script, name, arguments, switches=()):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / script), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict(switches)},
        )

    def answer(self):
        """What the process prints next."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of {self.name} ended, status {self.process.wait()}.")
        return json.loads(line)

    def time(self, job):
        """Seconds of one run of a job, by its number."""
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        """Ends the process, which reads until its input is closed."""
        self.process.communicate()


def compare(started, jobs, rounds):
    """Times the sides in turn, in every other round in reverse.

    Args:
        started: list of `Side`.
        jobs: list, what the sides were told to compile.
        rounds: int.

    Returns:
        For each side that is installed, by name: what it says about itself, and `seconds`, a list
        for each job, empty where the side has none.
    """
    about = {side.name: side.answer() for side in started}
    for side in started:
        if "missing" in about[side.name]:
            print(f"{side.name} is left out, not installed: {about[side.name]['missing']}.")
            del about[side.name]
            side.end()
    sides = [side for side in started if side.name in about]
    for side in sides:
        about[side.name]["seconds"] = [[] for _ in jobs]
    for _ in range(rounds):
        for job in range(len(jobs)):
            for side in sides:
                if about[side.name]["can"][job]:
                    about[side.name]["seconds"][job].append(side.time(job))
        sides.reverse()
    for side in sides:
        side.end()
    return about


def ratio(seconds, reference):
    """The median of the rounds' ratios: what disturbs a round disturbs both sides."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def serve(functions, about, steps):
    """Tells of the jobs, then runs one for each line that is read, and prints seconds a step.

    Args:
        functions: for each job a function without arguments, or None.
        about: dict, what else to tell.
        steps: list of ints, how many steps each function makes.
    """
    can = [function is not None for function in functions]
    print(json.dumps({**about, "can": can}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        functions[int(line)]()
        print((time.perf_counter() - start) / steps[int(line)], flush=True)
