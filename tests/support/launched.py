"""What torchrun starts in tests/run/test_distributed.py: the main of SCRIPT, with a fault put
into one of its processes. FAULT, in the environment: "RANK:KIND:STEP"; none where it is not set."""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import train_base
import train_refine

rank, kind, at = (os.environ.get("FAULT") or "-1::0").split(":")
argv = sys.argv[1:]
if int(rank) == int(os.environ["RANK"]) and not int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
    import torch

    from common.errors import DataError
    from dataset import sample as matting
    from training import loss, saving
    from training.guarded_optimizer import GuardedOptimizer

    calls = []

    def at_step(original, change):
        """Calls `change` instead, in this step: a step has one call of `original`."""

        def called(*arguments, **named):
            if not torch.is_inference_mode_enabled():  # validation
                calls.append(1)
                if len(calls) == int(at):
                    return change(original, *arguments, **named)
            return original(*arguments, **named)

        return called

    def send(number):
        def sending(original, *arguments, **named):
            os.kill(os.getpid(), number)
            return original(*arguments, **named)

        return sending

    def spoilt(original, *arguments):
        terms = original(*arguments)
        return {**terms, "alpha": terms["alpha"] * float("nan")}

    def spoilt_gradient(original, self):
        self.parameters[0].grad.fill_(float("inf"))
        return original(self)

    def full(*_arguments):
        raise OSError(28, os.strerror(28))

    if kind == "nan":
        loss.matting_loss = at_step(loss.matting_loss, spoilt)
    elif kind == "write":
        saving.write_sealed = full
    elif kind == "picture":
        read = matting.MattingDataset._augmented

        def unreadable(self, key):
            calls.append(1)
            if len(calls) > 2 * (int(at) - 1):  # samples of this process a step
                raise DataError("clip0/0000.jpg cannot be decoded")
            return read(self, key)

        matting.MattingDataset._augmented = unreadable
    elif kind == "data":
        argv[argv.index("--dataset-dir") + 1] = json.loads(os.environ["OTHER"])
    else:
        GuardedOptimizer.step = at_step(GuardedOptimizer.step, send(getattr(signal, kind)))

if __name__ == "__main__":
    script = {"train_base": train_base, "train_refine": train_refine}[os.environ["SCRIPT"]]
    sys.exit(script.main(argv))
