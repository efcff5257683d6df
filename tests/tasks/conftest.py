import pytest
from tasks.recognizers import join_records, make_recognizer, make_records


@pytest.fixture(scope="session")
def records():
    return make_records()


@pytest.fixture(scope="session")
def trained(records):
    recognizer = make_recognizer()
    recognizer.compile(learning_rate=0.01)
    shuffled = records[::7] + records[1::3] + records[::-2]
    recognizer.fit([*records, join_records(shuffled)], epochs=10, batch_size=8, verbose=0)
    return recognizer


@pytest.fixture(scope="session")
def document(records):
    """A document of 100,000 characters, and where its sentences are."""
    return join_records([records[i % 30] for i in range(4200)])


@pytest.fixture(scope="session")
def new_recognizer():
    return make_recognizer
