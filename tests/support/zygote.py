"""Imports all that a run needs, once, and forks a run for each line that it is given: real
processes, to be killed, without the seconds in which Python starts.

A line is a JSON object: "script", "argv", "folder" to run in, "output" (a file for both streams)
and, if wanted, "file_size", a limit in bytes on each file. Answers with the process's id, and with
its exit status (negative: the signal that killed it) when it has ended.
"""

import json
import os
import resource
import sys

import torch

torch.set_num_threads(1)

import train_base  # noqa: E402
import train_refine  # noqa: E402
from model import transfer  # noqa: E402, F401
from training import guarded_optimizer, journal, provenance, start, validator  # noqa: E402, F401

SCRIPTS = {"train_base": train_base, "train_refine": train_refine}
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(request["folder"])
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if "file_size" in request:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
        status = 70
        try:
            status = SCRIPTS[request["script"]].main(request["argv"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
