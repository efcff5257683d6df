"""A cell of a recurrent layer, called on many steps at once."""

import itertools

import keras
from keras import ops, tree

from keras_ext.ops.jacobian import value_and_jacobian


class CellSteps:
    """A cell as a function of all steps, its states side by side in one.

        y_t, x_t = cell(u_t, x_{t-1})

    Args:
        cell: built `keras.layers.Layer` with `state_size`.
        **arguments: of the cell's call, such as `training`.
    """

    def __init__(self, cell, **arguments):
        self.cell = cell
        self.arguments = arguments
        self.sizes = tree.flatten(cell.state_size)
        self.elementwise = getattr(cell, "elementwise", False)

    def call(self, inputs, states):
        """Outputs and next states.

        Args:
            inputs: (..., b, k).
            states: (..., b, d).

        Returns:
            (..., b, o) outputs, or None where they are the first of the next states; and (..., b, d).
        """
        rows = ops.reshape(states, (-1, sum(self.sizes)))
        outputs, new = self._rows(ops.reshape(inputs, (-1, inputs.shape[-1])), rows)
        lead = ops.shape(states)[:-1]
        if outputs is not None:
            outputs = ops.reshape(outputs, (*lead, outputs.shape[-1]))
        return outputs, ops.reshape(new, (*lead, sum(self.sizes)))

    def jacobian(self, inputs, states):
        """The next states and their derivative, (..., b, d, d), or (..., b, d) if it is diagonal.

        No gradient passes.
        """
        return self.jacobian_later(inputs, states)()

    def jacobian_later(self, inputs, states):
        """A function that computes `jacobian`, of the weights as they are now, when called."""
        inputs, states = ops.stop_gradient(inputs), ops.stop_gradient(states)
        frozen = self.frozen()

        def compute():
            u = ops.reshape(inputs, (-1, inputs.shape[-1]))
            x = ops.reshape(states, (-1, sum(self.sizes)))
            with frozen:
                new, jacobian = value_and_jacobian(
                    lambda x: self._rows(u, x)[1], x, self.elementwise
                )
            lead = ops.shape(states)
            return ops.reshape(new, lead), ops.reshape(jacobian, (*lead, *jacobian.shape[2:]))

        return compute

    def frozen(self):
        """A scope in which no gradient reaches the weights of the cell."""
        scopes = []

        def freeze(x):
            values = [(v, ops.stop_gradient(v.value)) for v in self.cell.variables]
            scopes.append(keras.StatelessScope(values))
            return x

        # In a layer of the cell's dtype: the policy of the layer around may cast to half precision.
        keras.layers.Lambda(freeze, dtype=self.cell.compute_dtype, name="freeze")(ops.zeros(()))
        return scopes[0]

    def join(self, states):
        """One tensor of the states of a cell, in the dtype that the cell computes in."""
        states = [ops.cast(state, self.cell.compute_dtype) for state in tree.flatten(states)]
        return ops.concatenate(states, axis=-1) if len(states) > 1 else states[0]

    def split(self, states):
        """The states as the cell has them, in a list."""
        size, ends = self.cell.state_size, itertools.accumulate(self.sizes)
        parts = [states[..., end - n : end] for n, end in zip(self.sizes, ends, strict=True)]
        return tree.pack_sequence_as([size] if isinstance(size, int) else list(size), parts)

    def _rows(self, inputs, states):
        outputs, new = self.cell(inputs, self.split(states), **self.arguments)
        first = tree.flatten(new)[0]
        return None if outputs is first else outputs, self.join(new)
