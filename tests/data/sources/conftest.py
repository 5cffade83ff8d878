from collections.abc import Iterator

import pytest
from tests.data.sources.web import Web, serve


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as server:
        yield server
