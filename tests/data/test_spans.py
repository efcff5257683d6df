import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_ext.data import (
    Encoding,
    Tokenizer,
    Window,
    entities_to_tokens,
    make_windows,
    merge_windows,
    tokens_to_characters,
)

OFFSETS = np.array([[-1, -1], [0, 3], [3, 5], [6, 6], [6, 7], [7, 8], [7, 8], [-1, -1]])


def entity(start, end, label="x"):
    return {"start": start, "end": end, "label": label}


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_tokens_and_characters_are_inverse(data, texts, kinds):
    text = data.draw(texts)
    for name, tokenizer in kinds.items():
        offsets = tokenizer.encode(text).offsets
        wide = np.flatnonzero(offsets[:, 0] < offsets[:, 1]).tolist()
        if not wide:
            continue
        pairs = data.draw(st.lists(st.tuples(st.sampled_from(wide), st.sampled_from(wide))))
        spans = [(i % 2, *sorted(pair)) for i, pair in enumerate(dict.fromkeys(pairs))]
        characters = tokens_to_characters(spans, offsets)
        entities = [entity(start, end, kind) for kind, start, end in characters.tolist()]
        back = entities_to_tokens(entities, offsets, {0: 0, 1: 1})
        unique = [list(row) for row in dict.fromkeys(map(tuple, characters.tolist()))]
        assert tokens_to_characters(back, offsets).tolist() == unique
        if name in ("wordpiece", "characters"):  # their tokens share no characters
            assert back.tolist() == [list(row) for row in dict.fromkeys(spans)]
        for _, start, end in unique:
            assert text[start:end]
            assert text[start:end] == text[start:end].strip()


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (0, 3, [1, 1]),
        (0, 5, [1, 2]),
        (6, 7, [4, 4]),  # not the token of zero width that also begins at 6
        (7, 8, [5, 6]),  # all tokens that share the character
        (3, 8, [2, 6]),
    ],
)
def test_entities_on_token_borders(start, end, span):
    spans = entities_to_tokens([entity(start, end)], OFFSETS, {"x": 4})
    assert spans.tolist() == [[4, *span]]
    assert spans.dtype == np.int32


@pytest.mark.parametrize(
    ("start", "end"), [(0, 2), (1, 3), (0, 6), (6, 6), (5, 3), (3, 3), (-1, -1), (-1, 3), (0, 99)]
)
def test_entities_off_token_borders_are_left_out(start, end):
    assert entities_to_tokens([entity(start, end)], OFFSETS, {"x": 0}).shape == (0, 3)


def test_unknown_labels_are_left_out_and_duplicates_count_once():
    entities = [entity(0, 3), entity(0, 3, "y"), entity(0, 3), entity(0, 3, "z")]
    spans = entities_to_tokens(entities, OFFSETS, {"x": 0, "z": 1})
    assert spans.tolist() == [[0, 1, 1], [1, 1, 1]]


def document(count, max_length=10, stride=4, index=0):
    starts = 3 * np.arange(count, dtype="int32")
    encoding = Encoding(np.arange(count, dtype="int32"), np.stack([starts, starts + 2], axis=1))
    return make_windows(encoding, index, max_length, stride, 1, 2)


def characters(kind, first, last):
    return (kind, 3 * first, 3 * last + 2)


def test_spans_begin_and_end_where_text_does():
    window = Window(0, 0, np.arange(len(OFFSETS)), OFFSETS)
    pairs = [(i, j) for i in range(8) for j in range(i, 8)]
    spans = [(0, *pair) for pair in pairs]
    (found,) = merge_windows([window], [(spans, np.zeros(len(spans)))])
    starts, ends = {0, 3, 6, 7}, {3, 5, 7, 8}
    assert set(found) == {(0, a, b) for a in starts for b in ends if a < b}
    apart = np.array(
        [[-1, -1], [0, 3], [5, 5], [6, 7], [9, 9], [-1, -1]]
    )  # blanks at 3 to 6, 7 to 9
    window = Window(0, 0, np.arange(6), apart)
    spans = [(0, 2, 3), (0, 1, 2), (0, 2, 2), (0, 3, 4), (0, 1, 3)]
    assert merge_windows([window], [(spans, np.zeros(5))]) == [{(0, 0, 7): 0.0}]


def test_control_characters_that_are_blanks_to_python_are_no_text():
    text = "Ada\x1c\x1dBo"  # a token each for `tokenizers`, of zero width
    encoding = Tokenizer.from_characters([text], min_count=1).encode(text)
    (window,) = make_windows(encoding, 0, 16, 4, 1, 2)
    count = len(window.ids)
    spans = [(0, i, j) for i in range(count) for j in range(i, count)]
    (found,) = merge_windows([window], [(spans, np.zeros(len(spans)))])
    entities = [text[start:end] for _, start, end in found]
    assert len(entities) == 15
    assert all(entity and entity == entity.strip() for entity in entities)


def test_one_window_gives_itself():
    (window,) = document(8)
    spans = [[0, 1, 1], [1, 1, 8], [0, 3, 5], [0, 4, 7]]
    scores = [0.5, 1.5, 2.5, -3.0]
    expected = dict(
        zip(map(tuple, tokens_to_characters(spans, window.offsets)), scores, strict=True)
    )
    assert merge_windows([window], [(spans, scores)]) == [expected]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 40),
    length=st.integers(4, 12),
    share=st.integers(0, 9),
    votes=st.integers(0, 2**32 - 1),
)
def test_a_span_counts_as_the_window_with_most_context_predicts_it(count, length, share, votes):
    windows = document(count, length, min(share, length - 3))
    random = np.random.default_rng(votes)
    predictions, expected = [], {}
    for window in windows:
        n = len(window.ids) - 2
        spans = [
            (0, i, j) for i in range(1, n + 1) for j in range(i, n + 1) if random.random() < 0.5
        ]
        predictions.append(
            (np.array(spans, "int32").reshape(-1, 3), random.normal(size=len(spans)))
        )
    for i in range(count):
        for j in range(i, count):
            best, owner = -1, None
            for index, window in enumerate(windows):
                first, last = window.first, window.first + len(window.ids) - 3
                if first <= i and j <= last:
                    left = i - first if first > 0 else np.inf
                    right = last - j if last < count - 1 else np.inf
                    if min(left, right) > best:
                        best, owner = min(left, right), index
            if owner is not None:
                place = [0, i - windows[owner].first + 1, j - windows[owner].first + 1]
                for span, score in zip(*predictions[owner], strict=True):
                    if span.tolist() == place:
                        expected[characters(0, i, j)] = score
    assert merge_windows(windows, predictions) == [expected]
    order = random.permutation(len(windows))
    shuffled = [windows[i] for i in order], [predictions[i] for i in order]
    assert merge_windows(*shuffled) == [expected]


def test_what_every_window_sees_comes_out_once_and_cut_pieces_vanish():
    windows = document(30, max_length=12, stride=5)
    truth = {(k, i, i + k) for i in range(30) for k in range(5) if i + k < 30}
    predictions = []
    for window in windows:
        first, last = window.first, window.first + 9
        seen = set()
        for kind, i, j in truth:
            i, j = max(i, first), min(j, last)  # a piece of it, where the border cuts it
            if i <= j:
                seen.add((kind, i - first + 1, j - first + 1))
        predictions.append((sorted(seen), np.ones(len(seen))))
    (merged,) = merge_windows(windows, predictions)
    assert set(merged) == {characters(*span) for span in truth}


def test_documents_are_kept_apart_and_those_without_tokens_are_empty():
    windows = [*document(3, index=1), *document(20, index=3)]
    predictions = [([[0, 1, 2]], [index]) for index, _ in enumerate(windows)]
    merged = merge_windows(windows, predictions, documents=6)
    assert len(merged) == 6
    assert [i for i, entities in enumerate(merged) if entities] == [1, 3]
    assert merged[1] == {characters(0, 0, 1): 0.0}
    assert merge_windows([], []) == []
    assert merge_windows([], [], documents=2) == [{}, {}]


def test_special_tokens_and_tokens_of_zero_width_are_no_entities():
    window = Window(0, 0, np.arange(8), OFFSETS)
    spans = [[0, 0, 0], [0, 0, 2], [0, 2, 7], [0, 7, 7], [0, 3, 3], [0, 3, 4]]
    assert merge_windows([window], [(spans, np.ones(6))]) == [{(0, 6, 7): 1.0}]


def test_spans_over_the_same_characters_keep_the_best_score():
    window = Window(0, 0, np.arange(8), OFFSETS)
    spans = [[0, 5, 5], [0, 5, 6], [0, 6, 6]]
    assert merge_windows([window], [(spans, [1.0, 3.0, 2.0])]) == [{(0, 7, 8): 3.0}]


def test_predictions_that_do_not_fit_the_windows_are_errors():
    windows = document(20)
    with pytest.raises(ValueError, match=f"len.windows.={len(windows)}, len.predictions.=0"):
        merge_windows(windows, [])
    empty = (np.zeros((0, 3)), np.zeros(0))
    with pytest.raises(ValueError, match="documents=0"):
        merge_windows(windows, [empty] * len(windows), documents=0)
