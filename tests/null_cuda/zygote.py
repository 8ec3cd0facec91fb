"""Imports all that the scripts need, on the null GPU but before CUDA is used, and forks a process
for each line that it is given: without the seconds in which Python starts and torch is imported.

A line is a JSON object: "argv" as for python (a script or -m and a module, then its arguments),
"folder" to run in, "environment" to add to, one for each process, and "output" and "errors", the
files for what they say. Answers with a line of their ids, and with one of their exit statuses
(negative: the signal that ended it) when all have ended.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.utils.tensorboard  # noqa: E402
import torchvision  # noqa: E402, F401

torch.set_num_threads(1)

for package in ("dataset", "model", "training"):
    for module in pkgutil.iter_modules([str(ROOT / package)], f"{package}."):
        importlib.import_module(module.name)
for script in ("train_base", "evaluate", "predict", "export"):
    importlib.import_module(script)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        children = []
        for environment in request["environment"]:
            child = os.fork()
            if child == 0:
                run(request, environment)
            children.append(child)
        print(json.dumps(children), flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


def run(request: dict, environment: dict[str, str]) -> NoReturn:
    """Runs the script as Python would, and ends the process: threads and what was registered for
    the end have their turn, but no module is taken apart, which takes longer than all else."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(environment)
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path, how in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["output"], writing),
        (2, request["errors"], writing),
    ):
        opened = os.open(path, how, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    target, *arguments = request["argv"]
    status: object = 1
    try:
        if target == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [target, *arguments]
            runpy.run_path(str(ROOT / target), run_name="__main__")
        status = 0
    except SystemExit as asked:
        status = asked.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


gc.collect()
gc.freeze()  # so that the children do not copy what they only look at
main()
