from keras_ext.optimizers.gradient_accumulation import GradientAccumulation
from keras_ext.optimizers.guarded_loss_scale import GuardedLossScale
from keras_ext.optimizers.layer_adaptation import LayerAdaptation
from keras_ext.optimizers.layerwise_decay import layerwise_decay
from keras_ext.optimizers.lookahead import Lookahead
from keras_ext.optimizers.non_finite_guard import NonFiniteGuard
from keras_ext.optimizers.parameterwise_lr import ParameterwiseLR
from keras_ext.optimizers.piecewise_linear import PiecewiseLinear
from keras_ext.optimizers.summed_gradients import SummedGradients
from keras_ext.optimizers.tiger import Tiger
from keras_ext.optimizers.warmup_cosine import WarmupCosine

__all__ = [
    "GradientAccumulation",
    "GuardedLossScale",
    "LayerAdaptation",
    "Lookahead",
    "NonFiniteGuard",
    "ParameterwiseLR",
    "PiecewiseLinear",
    "SummedGradients",
    "Tiger",
    "WarmupCosine",
    "layerwise_decay",
]
