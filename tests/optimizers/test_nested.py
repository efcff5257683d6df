from types import SimpleNamespace

import keras

from keras_ext.optimizers import GuardedLossScale, Lookahead, NonFiniteGuard, Tiger
from keras_ext.optimizers.nested import innermost, nested, outermost, side_by_side


def test_the_walk_goes_from_the_outside_in_and_into_several_side_by_side():
    adam, sgd = keras.optimizers.Adam(), keras.optimizers.SGD()
    several = SimpleNamespace(optimizers=[adam, sgd])  # as keras.optimizers.MultiOptimizer
    outer = SimpleNamespace(inner_optimizer=several)
    assert list(nested(outer)) == [outer, several, adam, sgd]
    assert innermost(outer) is several
    assert side_by_side(several) == [adam, sgd]
    assert side_by_side(adam) == [adam] == list(nested(adam))
    assert innermost(adam) is adam


def test_wrappers_and_the_loss_scaling_of_keras_are_walked_through():
    adam = keras.optimizers.Adam()
    guard = NonFiniteGuard(Lookahead(adam))
    scaled = keras.optimizers.LossScaleOptimizer(guard)
    assert list(nested(scaled)) == [scaled, guard, guard.inner_optimizer, adam]
    assert innermost(GuardedLossScale(Lookahead(adam))) is adam


def test_the_outermost_that_has_an_attribute_is_asked():
    tiger = Tiger()
    guard = NonFiniteGuard(tiger)
    assert outermost(guard, "skipped_steps") is None
    guard.build([keras.Variable([1.0])])
    assert outermost(guard, "skipped_steps") is guard.skipped_steps
    assert outermost(guard, "position", "skipped_steps") is tiger.position
    assert outermost(Lookahead(tiger), "missing", "skipped_steps") is tiger.skipped_steps
