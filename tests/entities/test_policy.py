"""The threshold and the policy that a recogniser keeps, and what it says of them."""

import math

import numpy as np
import pytest
from tasks.recognizers import make_recognizer, make_records

from keras_ext.data import validate
from keras_ext.entities.training import choose_policy
from keras_ext.metrics import score_entities
from keras_ext.tasks import EntityRecognizer

NESTED = make_records()[:8]
FLAT = [{**record, "entities": record["entities"][:2]} for record in NESTED]
CROSSING = [
    {"text": "Ada met Bo", "entities": [{"start": s, "end": e, "label": "person"} for s, e in pair]}
    for pair in [((0, 7), (4, 10))]
]


def found(recognizer, texts, **arguments):
    texts = [record["text"] for record in texts]
    return recognizer.predict(texts, **arguments)


def test_threshold_and_policy_are_defaults_that_arguments_override(trained, records):
    everything = found(trained, records, threshold=0.0, policy="nested")
    try:
        trained.threshold, trained.policy = {"place": 1e9}, "longest"
        assert found(trained, records) == found(
            trained, records, threshold={"place": 1e9}, policy="longest"
        )
        assert {e.label for each in found(trained, records) for e in each} == {"person"}
        assert found(trained, records, threshold=0.0, policy="nested") == everything
        gold = [record["entities"] for record in records]
        assert trained.evaluate(records) == score_entities(gold, found(trained, records))
        assert trained.evaluate(records, 0.0, "nested") == score_entities(gold, everything)
        trained.threshold = -3.0
        assert found(trained, records) == found(trained, records, threshold=-3, policy="longest")
    finally:
        trained.threshold, trained.policy = 0.0, "nested"


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [np.float32(0.5), {"person": -1.25}, -math.inf, 2])
def test_what_is_kept_is_in_the_bundle(trained, records, tmp_path, threshold):
    try:
        trained.threshold, trained.policy = threshold, "flat"
        trained.save(tmp_path / "bundle")
        expected = found(trained, records)
    finally:
        trained.threshold, trained.policy = 0.0, "nested"
    loaded = EntityRecognizer.load(tmp_path / "bundle")
    assert (loaded.threshold, loaded.policy) == (threshold, "flat")
    assert found(loaded, records) == expected


@pytest.mark.slow
def test_the_best_threshold_is_kept_in_the_bundle(untrained, records, tmp_path):
    untrained.fit(records[:12], epochs=2, batch_size=8, verbose=0)
    thresholds = untrained.best_threshold(records, policy="longest", per_label=True)
    untrained.save(tmp_path / "bundle")
    loaded = EntityRecognizer.load(tmp_path / "bundle")
    assert (loaded.threshold, loaded.policy) == (thresholds, "longest")
    assert loaded.evaluate(records) == untrained.evaluate(records, thresholds, "longest")


def test_a_bundle_without_them_is_read_as_it_was_made(trained):
    settings = {k: v for k, v in trained.settings.items() if k not in ("threshold", "policy")}
    recognizer = EntityRecognizer.__new__(EntityRecognizer)
    recognizer._set(trained.tokenizer, trained.labels, **settings)
    assert (recognizer.threshold, recognizer.policy) == (0.0, "nested")


def test_the_policy_follows_the_training_data_until_it_is_chosen():
    recognizer = make_recognizer()

    kept = None

    def chosen(records, asked=None):
        """What is chosen, and kept where somebody asked for it."""
        nonlocal kept
        report = validate(records, recognizer.tokenizer, recognizer.labels, 32, 8)
        policy, line = choose_policy(kept, asked, report)
        assert line.startswith("policy ") and policy in line
        kept = policy if asked is not None else kept
        return policy, line

    assert recognizer.policy == "nested"
    policy, line = chosen(FLAT)
    assert policy == "flat" and "0 of 16 entities overlap" in line
    policy, line = chosen(NESTED)
    assert policy == "nested" and "8 of 24 entities overlap" in line
    assert chosen(CROSSING)[0] == "nested"
    assert chosen([{"text": "Ada", "entities": []}])[0] == "nested"  # which says nothing
    policy, line = chosen(FLAT, "longest")
    assert policy == "longest" and "as chosen" in line
    assert chosen(FLAT)[0] == "longest"
    with pytest.warns(UserWarning, match="keeps the policy 'longest'.*8 of the training data do"):
        assert chosen(NESTED)[0] == "longest"
    assert chosen(NESTED, "flat")[0] == "flat"  # without a warning: the user said so
    with pytest.raises(ValueError, match="policy='best'"):
        chosen(FLAT, "best")


def test_each_fit_follows_its_data_until_the_policy_is_chosen(new_recognizer, tmp_path):
    recognizer = new_recognizer()
    recognizer.compile(learning_rate=0.0)

    def policy_after(records, **arguments):
        recognizer.fit(records, epochs=0, verbose=0, **arguments)
        return recognizer.policy

    assert [policy_after(each) for each in (FLAT, NESTED, FLAT)] == ["flat", "nested", "flat"]
    assert policy_after(NESTED, policy="longest") == policy_after(FLAT) == "longest"
    recognizer.policy = "flat"
    with pytest.warns(UserWarning, match="keeps the policy 'flat'") as caught:
        assert policy_after(NESTED) == "flat"
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="policy='best'"):
        policy_after(FLAT, policy="best")


@pytest.mark.slow
def test_validation_measures_at_what_is_kept(untrained, records, capsys):
    untrained.threshold = {"person": -30.0, "place": 1e9}
    history = untrained.fit(
        records[:8], records[8:12], epochs=1, batch_size=8, verbose=2, policy="longest"
    )
    assert "policy              longest   of entities that overlap" in capsys.readouterr().out
    scores = untrained.evaluate(records[8:12])
    assert set(scores.per_label) == {"person", "place"}
    assert scores.per_label["place"].predicted == 0 < scores.per_label["person"].predicted
    assert history.history["val_precision"] == [scores.micro.precision]


@pytest.mark.slow
def test_where_nothing_is_above_the_threshold_it_says_so(trained, untrained, records):
    message = r"No span scores above the threshold 1000000000.0, .*`best_threshold`"
    with pytest.warns(UserWarning, match=message):
        assert trained.evaluate(records, threshold=1e9).micro.f1 == 0
    untrained.threshold = 1000.0
    with pytest.warns(UserWarning, match="best_threshold") as caught:
        untrained.fit(records[:4], records[:4], epochs=2, batch_size=4, verbose=0)
    assert len(caught) == 1 and caught[0].filename == __file__
    # Nothing to say where there is nothing to find.
    trained.evaluate([{"text": "Ada", "entities": []}], threshold=1e9)


@pytest.mark.parametrize("score", [0.0, 1.0, -3.5, 50.0, -800.0, 1e30, -math.inf])
def test_the_probability_is_the_logistic_function_of_the_score(score):
    from keras_ext.entities import Entity

    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(np.float64(-score)))
    assert Entity(0, 1, "x", score=score).probability == pytest.approx(expected, abs=1e-15)
