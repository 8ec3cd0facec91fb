"""Works beside the training, in a thread: one piece at a time. The training is told its errors."""

import threading
from collections.abc import Callable

import torch

CPU = torch.device("cpu")


class Beside:
    """A thread for one piece of work after the other. name: the thread's; device: the run's, which
    is the thread's current one, too: a thread begins with GPU 0, and would take memory of it."""

    def __init__(self, name: str, device: torch.device = CPU) -> None:
        self._name, self._device = name, device
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Begins `work` when the piece before it is over, for which this waits."""
        self.join()

        def run() -> None:
            try:
                if self._device.type == "cuda":
                    torch.cuda.set_device(self._device)
                work()
            except BaseException as error:  # of whatever kind, the training has to know
                self._error = error

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Returns when the last piece is over, or after so many seconds."""
        if self._thread:
            self._thread.join(timeout)

    def check(self) -> None:
        """Raises what went wrong in the last piece, if something has."""
        if self._error:
            error, self._error = self._error, None
            raise error

    def failed(self) -> bool:
        """Returns when the last piece is over: whether something went wrong, which check raises."""
        self.join()
        return self._error is not None

    def wait(self) -> None:
        """Returns when the last piece is over. Raises what went wrong in it."""
        self.join()
        self.check()


def all_given(device: torch.device) -> Callable[[], None]:
    """What to call, in a thread, to wait until `device` has done all that it has been given up to
    now, such as copies to the host."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # whose waiting takes no core from the training
    event.record(torch.cuda.current_stream(device))
    return event.synchronize
