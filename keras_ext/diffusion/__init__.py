"""Diffusion: schedules, predictions, and samplers for any denoiser `(x, t, **conditions)`."""

from keras_ext.diffusion.amed_predictor import AMEDPredictor
from keras_ext.diffusion.amed_sample import amed_sample
from keras_ext.diffusion.amed_trainer import AMEDTrainer
from keras_ext.diffusion.characteristics import characteristics, straight_lines
from keras_ext.diffusion.classifier_free_guidance import ClassifierFreeGuidance
from keras_ext.diffusion.classifier_guidance import ClassifierGuidance
from keras_ext.diffusion.compiled import compiled
from keras_ext.diffusion.continuous_schedules import (
    EDMSchedule,
    StraightSchedule,
    SubVPSchedule,
    VESchedule,
    VPContinuousSchedule,
)
from keras_ext.diffusion.ddcm import ddcm_decode, ddcm_encode, ddcm_sample
from keras_ext.diffusion.ddim import ddim, ddpm
from keras_ext.diffusion.denoising_diffusion import DenoisingDiffusion
from keras_ext.diffusion.dequantize import bits_per_dimension, dequantize
from keras_ext.diffusion.encode import ddim_encode, interpolate
from keras_ext.diffusion.estimate_variance import estimate_reverse_variance
from keras_ext.diffusion.flow_conversion import as_denoiser, as_velocity
from keras_ext.diffusion.flow_sample import flow_sample
from keras_ext.diffusion.greens_field import greens_field, heat_kernel, poisson_kernel
from keras_ext.diffusion.interpolants import (
    FunctionInterpolant,
    LinearInterpolant,
    StochasticInterpolant,
    TrigonometricInterpolant,
    VariancePreservingInterpolant,
)
from keras_ext.diffusion.log_likelihood import log_likelihood
from keras_ext.diffusion.nll_bound import nll_bound
from keras_ext.diffusion.ode import ode_sample
from keras_ext.diffusion.optimal_times import hops_bound, optimal_times
from keras_ext.diffusion.poisson_flow import PoissonFlow
from keras_ext.diffusion.predictions import as_eps, convert_prediction
from keras_ext.diffusion.rectified_flow import RectifiedFlow
from keras_ext.diffusion.reverse_covariance import ReverseCovariance
from keras_ext.diffusion.reverse_variance import ReverseVariance
from keras_ext.diffusion.sample_result import SampleResult
from keras_ext.diffusion.sde import Langevin, edm_stochastic, sde_sample
from keras_ext.diffusion.similarity_guidance import SimilarityGuidance
from keras_ext.diffusion.straightness import straightness
from keras_ext.diffusion.tabulated_schedules import (
    CosineSchedule,
    CustomSchedule,
    LinearHoSchedule,
    SuLinearSchedule,
)
from keras_ext.diffusion.unified_diffusion import UnifiedDiffusion
from keras_ext.diffusion.unified_sample import unified_sample

__all__ = [
    "AMEDPredictor",
    "AMEDTrainer",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "CosineSchedule",
    "CustomSchedule",
    "DenoisingDiffusion",
    "EDMSchedule",
    "FunctionInterpolant",
    "Langevin",
    "LinearHoSchedule",
    "LinearInterpolant",
    "PoissonFlow",
    "RectifiedFlow",
    "ReverseCovariance",
    "ReverseVariance",
    "SampleResult",
    "SimilarityGuidance",
    "StochasticInterpolant",
    "StraightSchedule",
    "SuLinearSchedule",
    "SubVPSchedule",
    "TrigonometricInterpolant",
    "UnifiedDiffusion",
    "VESchedule",
    "VPContinuousSchedule",
    "VariancePreservingInterpolant",
    "amed_sample",
    "as_denoiser",
    "as_eps",
    "as_velocity",
    "bits_per_dimension",
    "characteristics",
    "compiled",
    "convert_prediction",
    "ddcm_decode",
    "ddcm_encode",
    "ddcm_sample",
    "ddim",
    "ddim_encode",
    "ddpm",
    "dequantize",
    "edm_stochastic",
    "estimate_reverse_variance",
    "flow_sample",
    "greens_field",
    "heat_kernel",
    "hops_bound",
    "interpolate",
    "log_likelihood",
    "nll_bound",
    "ode_sample",
    "optimal_times",
    "poisson_kernel",
    "sde_sample",
    "straight_lines",
    "straightness",
    "unified_sample",
]
