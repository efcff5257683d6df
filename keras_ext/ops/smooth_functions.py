"""Smooth approximations of functions that jump or bend, by the width of a kernel.

Each is the convolution of the function with the density p(x / s) / s of width s:

| function | normal density, z = x / s | logistic density |
|---|---|---|
| step | Phi(z) | sigmoid(z) |
| sign | erf(z / 2^(1/2)) | tanh(z / 2) |
| relu | x Phi(z) + s phi(z) | s softplus(z) |
| abs | x erf(z / 2^(1/2)) + 2 s phi(z) | x + 2 s softplus(-z) |
| floor | x - 1/2 + sum_k exp(-2 (pi k s)^2) sin(2 pi k x) / (pi k) | likewise, a / sinh(a), a = 2 pi^2 k s |

As s goes to 0 they go to the function; that of relu is off by s / (2 pi)^(1/2) at most with the
normal density, and by s ln 2 with the logistic one. None cancels far from where the function bends.
GELU, x Phi(x), is not among them: it is x times a smooth step.

`x` is a tensor, or numbers; `width` a number above 0, or a tensor that broadcasts with x; `kernel`
"gaussian" or "logistic". The result has the shape and dtype of x. A `width` of 0 or below, or an
unknown kernel, is a ValueError.

Source: Jianlin Su, smooth approximations of functions by a Dirac kernel, 2021,
https://kexue.fm/archives/8718; Koushik Biswas et al., SAU: Smooth activation function using
convolution with approximate identities, 2021, https://arxiv.org/abs/2109.13210
"""

from math import pi

from keras import backend, ops

from keras_ext.ops.smooth import floats, other_side, smooth
from keras_ext.ops.smoothing_kernels import get_kernel


def smooth_step(x, width=1.0, kernel="gaussian"):
    """0 below 0, 1 from 0 on, smoothed: the distribution function of the kernel.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_step(np.array([-1.0, 0.0, 9.0]), kernel="logistic")), 4).tolist()
    [0.2689, 0.5, 0.9999]
    """
    return smooth([0], [[0], [1]], kernel)(x, width)


def smooth_sign(x, width=1.0, kernel="gaussian"):
    """-1 below 0, 1 from 0 on, smoothed.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_sign(np.array([-9.0, 0.0, 0.5]))), 4).tolist()
    [-1.0, 0.0, 0.3829]
    """
    return smooth([0], [[-1], [1]], kernel)(x, width)


def smooth_relu(x, width=1.0, kernel="gaussian"):
    """max(x, 0), smoothed.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_relu(np.array([-9.0, 0.0, 9.0]), width=0.5)), 4).tolist()
    [0.0, 0.1995, 9.0]
    """
    return smooth([0], [[0], [0, 1]], kernel)(x, width)


def smooth_leaky_relu(x, negative_slope=0.2, width=1.0, kernel="gaussian"):
    """max(x, 0) + negative_slope min(x, 0), smoothed.

    Args:
        x: tensor.
        negative_slope: number or tensor. Defaults to 0.2, that of `keras.ops.leaky_relu`.
        width: number above 0, or tensor. Defaults to 1.
        kernel: "gaussian" or "logistic". Defaults to "gaussian".

    Returns:
        Tensor of the shape and dtype of x.

    Example:

    >>> import numpy as np
    >>> y = smooth_leaky_relu(np.array([-9.0, 0.0, 9.0]), 0.1, width=0.5)
    >>> np.round(np.asarray(y), 4).tolist()
    [-0.9, 0.1795, 9.0]
    """
    x, width, dtype = floats(x, width)
    slope = ops.cast(negative_slope, x.dtype)
    bend = (1 - slope) * other_side(x, [0, 1], width, kernel)
    return ops.cast(ops.where(x >= 0, x, slope * x) + bend, dtype)


def smooth_abs(x, width=1.0, kernel="gaussian"):
    """|x|, smoothed.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_abs(np.array([-9.0, 0.0, 9.0]), width=0.5)), 4).tolist()
    [9.0, 0.3989, 9.0]
    """
    return smooth([0], [[0, -1], [0, 1]], kernel)(x, width)


def smooth_max(x, y, width=1.0, kernel="gaussian"):
    """The larger of two tensors that broadcast, smoothed in their difference.

        max_s(x, y) = y + relu_s(x - y),   with the logistic kernel s logaddexp(x / s, y / s)

    The logistic one is associative, the normal one is not.

    Args:
        x: tensor.
        y: tensor.
        width: number above 0, or tensor. Defaults to 1.
        kernel: "gaussian" or "logistic". Defaults to "gaussian".

    Returns:
        Tensor of their broadcast shape.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_max(np.array([0.0, 5.0]), 0.0, kernel="logistic")), 4).tolist()
    [0.6931, 5.0067]
    """
    numbers = (type(each) if type(each) in (int, float) else each.dtype for each in (x, y))
    dtype = backend.result_type(*numbers, float)
    x, y = (ops.convert_to_tensor(each, dtype) for each in (x, y))
    x, width, _ = floats(x, width)
    y = ops.cast(y, x.dtype)
    larger = ops.where(x >= y, x, y) + other_side(x - y, [0, 1], width, kernel)
    return ops.cast(larger, dtype)


def smooth_min(x, y, width=1.0, kernel="gaussian"):
    """The smaller of two tensors that broadcast, smoothed in their difference.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_min(np.array([0.0, 5.0]), 0.0, kernel="logistic")), 4).tolist()
    [-0.6931, -0.0067]
    """
    return -smooth_max(ops.negative(x), ops.negative(y), width, kernel)


def smooth_clip(x, x_min, x_max, width=1.0, kernel="gaussian"):
    """x cut to what lies between two numbers, smoothed.

    Args:
        x: tensor.
        x_min: number.
        x_max: number above `x_min`.
        width: number above 0, or tensor. Defaults to 1.
        kernel: "gaussian" or "logistic". Defaults to "gaussian".

    Returns:
        Tensor of the shape and dtype of x.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_clip(np.array([-9.0, 0.0, 1.0]), 0, 1, width=0.1)), 4).tolist()
    [0.0, 0.0399, 0.9601]
    """
    return smooth([x_min, x_max], [[x_min], [0, 1], [x_max]], kernel)(x, width)


def smooth_floor(x, width=0.1, kernel="gaussian"):
    """The largest whole number that is not above x, smoothed.

    By its steps near x for widths below 1/4, and by its harmonics above, six of each; either is
    exact to float32 on its side. For rounding that has a gradient: that of f_s is the kernel's
    density around each step, and near 1 everywhere for widths above 1/2.

    Args:
        x: tensor.
        width: number above 0, or tensor. Defaults to 0.1.
        kernel: "gaussian" or "logistic". Defaults to "gaussian".

    Returns:
        Tensor of the shape and dtype of x.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_floor(np.array([0.5, 1.0, 1.1]))), 4).tolist()
    [0.0, 0.5, 0.8413]
    """
    ramp, _, harmonic = get_kernel(kernel)
    x, s, dtype = floats(x, width)
    whole = ops.stop_gradient(ops.floor(x))
    part = x - whole  # from 0 to 1
    near, far = whole, whole + part - 0.5
    narrow = ops.minimum(s, 0.25)
    for k in range(1, 7):
        near = near + ramp((part - k) / narrow, 0) - ramp((1 - k - part) / narrow, 0)
        a = 2 * pi * k
        far = far + harmonic(a * ops.maximum(s, 0.25)) * ops.sin(a * part) / (pi * k)
    return ops.cast(ops.where(s < 0.25, near, far), dtype)


def smooth_ceil(x, width=0.1, kernel="gaussian"):
    """The smallest whole number that is not below x, smoothed as `smooth_floor`.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_ceil(np.array([0.5, 1.0, 1.1]))), 4).tolist()
    [1.0, 1.5, 1.8413]
    """
    return -smooth_floor(ops.negative(x), width, kernel)


def smooth_round(x, width=0.1, kernel="gaussian"):
    """The whole number nearest to x, smoothed as `smooth_floor`.

    Example:

    >>> import numpy as np
    >>> np.round(np.asarray(smooth_round(np.array([0.5, 1.0, 1.4]))), 4).tolist()
    [0.5, 1.0, 1.1587]
    """
    x, _, dtype = floats(x, 1.0)
    return ops.cast(smooth_floor(x + 0.5, width, kernel), dtype)
