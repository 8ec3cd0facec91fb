import pytest


@pytest.fixture(autouse=True)
def network(request: pytest.FixtureRequest) -> None:
    """What trains is tiny, except in tests that are marked `published`, and in other processes."""
    if not request.node.get_closest_marker("published"):
        request.getfixturevalue("tiny_network")
