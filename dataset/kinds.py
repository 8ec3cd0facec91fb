"""Kinds of files, by their endings: what is a picture, what a video, and what is said of others."""

import os
from collections import Counter

PICTURE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
VIDEO_ENDINGS = (
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".mts",
    ".m2ts",
    ".ts",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
)
MAX_ENDINGS_LISTED = 6  # of files that are not read
MAX_ENDING_LENGTH = 10  # characters; more are no ending, but a name with a point in it


def kind_of(name: str) -> str:
    """A file's ending, as messages say it."""
    ending = os.path.splitext(name)[1].lower()
    return ending if 1 < len(ending) <= MAX_ENDING_LENGTH else "without an ending"


def said_of_passed(passed: Counter[str]) -> str:
    """Counts by ending in words, the most first."""
    kinds = sorted(passed.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{count} {ending}" for ending, count in kinds[:MAX_ENDINGS_LISTED]]
    if more := sum(count for _, count in kinds[MAX_ENDINGS_LISTED:]):
        said.append(f"{more} of other endings")
    return ", ".join(said)
