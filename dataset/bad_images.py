"""Pictures that --on-bad-image skip leaves out: counted, said once each, and not too many.

It reads none of them.
"""

from collections.abc import Callable

from common.errors import DataError


class BadImages:
    """Counts the pictures that are left out of `count` foregrounds, and says each once. Raises
    DataError where they are more than max_bad_images(count).

    seen: what was wrong with each. samples: how many samples were replaced.
    """

    def __init__(self, count: int, say: Callable[[str], None]) -> None:
        self.seen: set[str] = set()
        self.samples = 0
        self.count, self.say = count, say

    def report(self, faults: list[str]) -> None:
        """Takes what was wrong in a batch."""
        self.samples += len(faults)
        for fault in faults:
            if fault not in self.seen:
                self.seen.add(fault)
                self.say(f"left out (bad picture {len(self.seen)}): {fault}")
        self.check(len(self.seen))

    def check(self, faults: int) -> None:
        """Raises DataError where so many bad pictures, of all processes, are too many."""
        if faults > max_bad_images(self.count):
            raise DataError(
                f"{faults} pictures were left out, which is more than 1 % of "
                f"{self.count}; see above which, and repair or remove them"
            )


def max_bad_images(count: int) -> int:
    """One in a hundred, and at least one."""
    return max(1, count // 100)
