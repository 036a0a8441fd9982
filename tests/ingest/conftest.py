"""What tests of remote input share: the loopback server, and a clock that does not wait."""

import threading
from collections.abc import Iterator

import pytest
from loopback import Server, Waits

from curation.ingest import remote


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.released.set()
        made.shutdown()
        thread.join()
        remote._process.session().close()
        remote._process.forget()


@pytest.fixture
def waits() -> Waits:
    return Waits()
