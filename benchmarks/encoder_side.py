"""One side of encoder_step.py, in a process of its own.

    python encoder_side.py '{"side": "BertEncoder", "jobs": [["training", "graph"]], ...}'

Compiles the jobs, prints a line of JSON about them, and for each line it then reads, the number of
a job, runs one step and prints its seconds.
"""

import importlib.metadata
import importlib.util
import json
import sys

import numpy as np
from memory import resident_megabytes, restart_peak
from sides import serve

DROPOUT = 0.1
LEARNING_RATE = 1e-5
FIT_STEPS = 4


def draw_batch(vocabulary_size, batch, length, seed=0):
    """Sequences of half to all of the length; 0 is the id of padding and of no token."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length) < rng.integers(length // 2, length + 1, (batch, 1))
    ids = rng.integers(1, vocabulary_size, (batch, length)) * mask
    segments = mask & (np.arange(length) >= length // 4)
    return {
        "token_ids": ids.astype("int32"),
        "segment_ids": segments.astype("int32"),
        "padding_mask": mask,
    }


def keras_ext_steps(sizes, batch, encoder, **arguments):
    """Those of an encoder of keras_ext."""
    import keras

    from keras_ext import models
    from keras_ext.callbacks import KeepFreedMemory

    dropouts = {"dropout": DROPOUT, "attention_dropout": DROPOUT}
    model = getattr(models, encoder)(**sizes, **dropouts, **arguments)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    return TensorFlowSteps(model, batch, optimizer, keras, [KeepFreedMemory()])


def keras_hub_steps(sizes, batch):
    """Those of KerasHub's BERT without its pooler."""
    import keras
    import keras_hub

    backbone = keras_hub.models.BertBackbone(**sizes, dropout=DROPOUT)
    model = keras.Model(backbone.input, backbone.output["sequence_output"])
    batch = {**batch, "padding_mask": batch["padding_mask"].astype("int32")}
    return TensorFlowSteps(model, batch, keras.optimizers.Adam(LEARNING_RATE), keras)


def bert4keras_steps(sizes, batch, model):
    """Those of a model of bert4keras, whose mask is that of the ids above 0."""
    import tf_keras
    from bert4keras.models import build_transformer_model

    model = build_transformer_model(
        model=model,
        vocab_size=sizes["vocabulary_size"],
        hidden_size=sizes["hidden_dim"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["intermediate_dim"],
        hidden_act="gelu",
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
    )
    batch = [batch["token_ids"], batch["segment_ids"]]
    return TensorFlowSteps(model, batch, tf_keras.optimizers.Adam(LEARNING_RATE), tf_keras)


def transformers_steps(sizes, batch):
    """Those of the BERT of transformers without its pooler."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=sizes["vocabulary_size"],
        hidden_size=sizes["hidden_dim"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["intermediate_dim"],
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
    )
    return TorchSteps(transformers.BertModel(config, add_pooling_layer=False), batch)


# For each side the packages it needs, what makes its steps, and arguments for that.
SIDES = {
    "BertEncoder": (["keras"], keras_ext_steps, {"encoder": "BertEncoder"}),
    "BertEncoder/bfloat16": (
        ["keras"],
        keras_ext_steps,
        {"encoder": "BertEncoder", "dtype": "mixed_bfloat16"},
    ),
    "BertEncoder/gelu_tanh": (
        ["keras"],
        keras_ext_steps,
        {"encoder": "BertEncoder", "activation": "gelu_tanh"},
    ),
    "RoFormerEncoder": (["keras"], keras_ext_steps, {"encoder": "RoFormerEncoder"}),
    "bert4keras/BERT": (["bert4keras", "tf_keras"], bert4keras_steps, {"model": "bert"}),
    "bert4keras/RoFormer": (["bert4keras", "tf_keras"], bert4keras_steps, {"model": "roformer"}),
    "KerasHub/BertBackbone": (["keras_hub"], keras_hub_steps, {}),
    "transformers/BertModel": (["transformers", "torch"], transformers_steps, {}),
}


class TensorFlowSteps:
    """Steps of a model of Keras 2 or 3 on TensorFlow, with their own gradient tape.

    Args:
        model: from the batch to hidden states (b, n, d).
        batch: what the model takes, NumPy.
        optimizer: of the same Keras as the model.
        keras: the module of that Keras.
        callbacks: for `fit`.
    """

    modes = ("graph", "XLA")

    def __init__(self, model, batch, optimizer, keras, callbacks=()):
        import tensorflow as tf

        self.keras = keras
        self.callbacks = list(callbacks)
        self.model = model
        self.batch = tf.nest.map_structure(tf.constant, batch)
        self.optimizer = optimizer
        optimizer.build(model.trainable_weights)
        self.weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)

    def inference(self, mode):
        """A function that runs the model."""
        import tensorflow as tf

        run = tf.function(
            lambda batch: self.model(batch, training=False), jit_compile=mode == "XLA"
        )
        return lambda: run(self.batch).numpy()

    def training(self, mode):
        """A function that trains on the batch; the loss is the mean square."""
        import tensorflow as tf

        weights = self.model.trainable_weights
        # A weight of Keras 3 wraps the variable that the tape watches.
        variables = [w if isinstance(w, tf.Variable) else w.value for w in weights]

        def step(batch):
            with tf.GradientTape() as tape:
                hidden = tf.cast(self.model(batch, training=True), "float32")
                loss = tf.reduce_mean(tf.square(hidden))
            gradients = tape.gradient(loss, variables)
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
            return loss

        run = tf.function(step, jit_compile=mode == "XLA")
        return lambda: run(self.batch).numpy()

    def fit(self, mode):
        """A function that runs Keras' `fit` on some batches of a Python data set.

        Ours with `KeepFreedMemory`, as the tasks of keras_ext do.
        """
        import tensorflow as tf

        data_set = getattr(self.keras.utils, "PyDataset", None) or self.keras.utils.Sequence
        inputs = tf.nest.map_structure(lambda tensor: tensor.numpy(), self.batch)
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        shape = tf.nest.flatten(inputs)[0].shape
        zeros = np.zeros((*shape, self.model.output_shape[-1]), "float32")

        class Batches(data_set):
            def __len__(self):
                return FIT_STEPS

            def __getitem__(self, index):
                return inputs, zeros

        self.model.compile(self.optimizer, "mse", jit_compile=mode == "XLA")
        return lambda: self.model.fit(Batches(), verbose=0, callbacks=self.callbacks)


class TorchSteps:
    """The same steps of a model of transformers on torch, which runs operation by operation.

    Args:
        model: a `BertModel`.
        batch: what `draw_batch` gives.
    """

    modes = ("graph",)

    def __init__(self, model, batch):
        import torch

        self.model = model
        self.batch = {
            "input_ids": torch.tensor(batch["token_ids"]),
            "token_type_ids": torch.tensor(batch["segment_ids"]),
            "attention_mask": torch.tensor(batch["padding_mask"]),
        }
        self.optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
        # Its state comes with the first step; one without a gradient changes no weight.
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.weights = sum(weight.numel() for weight in model.parameters())

    def inference(self, mode):
        """A function that runs the model."""
        import torch

        def step():
            self.model.eval()
            with torch.inference_mode():
                return self.model(**self.batch).last_hidden_state.numpy()

        return step

    def training(self, mode):
        """A function that trains on the batch; the loss is the mean square."""

        def step():
            self.model.train()
            self.optimizer.zero_grad()
            loss = self.model(**self.batch).last_hidden_state.square().mean()
            loss.backward()
            self.optimizer.step()
            return loss.item()

        return step


def compiled(steps, jobs):
    """A function for each job, None where the side has no such mode, and its peak memory.

    That is resident memory above weights and optimizer; only of the first mode, inference before
    training, since TensorFlow keeps what it has once had.
    """
    functions, megabytes = [None] * len(jobs), [None] * len(jobs)
    first = jobs[0][1]
    baseline = resident_megabytes("VmRSS")
    for job in sorted(range(len(jobs)), key=lambda job: (jobs[job][1] != first, jobs[job][0])):
        task, mode = jobs[job]
        if mode in steps.modes and hasattr(steps, task):
            functions[job] = getattr(steps, task)(mode)
            functions[job]()
            restart_peak()
            functions[job]()
            if mode == first:
                megabytes[job] = resident_megabytes("VmHWM") - baseline
    return functions, megabytes


def main():
    """Answers what it has compiled, then runs a step for each line."""
    arguments = json.loads(sys.argv[1])
    packages, make_steps, kwargs = SIDES[arguments["side"]]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(json.dumps({"missing": missing}), flush=True)
        return
    sizes = arguments["sizes"]
    batch = draw_batch(sizes["vocabulary_size"], **arguments["shape"])
    steps = make_steps(sizes, batch, **kwargs)
    functions, megabytes = compiled(steps, arguments["jobs"])
    versions = {name: importlib.metadata.version(name) for name in packages}
    about = {"weights": steps.weights, "megabytes": megabytes, "versions": versions}
    serve(functions, about, [FIT_STEPS if task == "fit" else 1 for task, _ in arguments["jobs"]])


if __name__ == "__main__":
    main()
