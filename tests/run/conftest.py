import pytest

from model.matting_base import ENCODERS
from model.mobilenet import MobileNetV2Encoder


@pytest.fixture(autouse=True)
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What trains is tiny, except in tests that are marked `published`, and in other processes."""
    if request.node.get_closest_marker("published"):
        monkeypatch.setitem(ENCODERS, "mobilenetv2", MobileNetV2Encoder)
    else:
        request.getfixturevalue("tiny_network")
