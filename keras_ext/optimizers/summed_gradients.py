import keras

from keras_ext.optimizers.replicas import dense, on_first_replica, sum_over_replicas
from keras_ext.optimizers.wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="keras_ext")
class SummedGradients(OptimizerWrapper):
    """Sums gradients before an optimizer clips or squares them (TensorFlow).

    The inner optimizer gets the gradient of the loss of the whole batch: of all replicas, and of an
    embedding as one dense tensor, with the rows of a token that occurs several times added up.
    Keras' optimizers clip and square what they are given: a part of the gradient on each replica,
    and on one device too repeated rows one by one. So the norm that is clipped, and Adam's second
    moment, are not those of the gradient. Here they are, and training on several replicas is
    training on one device. `GradientAccumulation` does the same for its windows.

    There is no state, and on one device no cost: Adam makes embedding gradients dense in any case.

    Args:
        inner_optimizer: a Keras optimizer, its name, or a wrapper that may stand inside.
        name: str.

    Raises:
        ValueError: if the inner optimizer cannot stand inside this one.

    Example:

    ```python
    import keras
    import keras_ext

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    adam = keras.optimizers.AdamW(3e-4, global_clipnorm=1.0)
    model.compile(loss="mse", optimizer=keras_ext.optimizers.SummedGradients(adam))
    ```
    """

    def build(self, variables):
        if not self.built:
            super().build(variables)

    def update(self, gradients, variables):
        summed = sum_over_replicas([dense(gradient) for gradient in gradients])
        # All replicas know the sum, and the inner optimizer adds up what they give.
        self.inner_optimizer.apply(on_first_replica(summed), variables)
