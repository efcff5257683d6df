"""Diffusion: schedules, predictions, and samplers for any denoiser `(x, t, **conditions)`."""

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
from keras_ext.diffusion.encode import ddim_encode, interpolate
from keras_ext.diffusion.nll_bound import nll_bound
from keras_ext.diffusion.ode import ode_sample
from keras_ext.diffusion.predictions import as_eps, convert_prediction
from keras_ext.diffusion.sample_result import SampleResult
from keras_ext.diffusion.schedule import Schedule
from keras_ext.diffusion.sde import Langevin, edm_stochastic, sde_sample
from keras_ext.diffusion.tabulated_schedules import (
    CosineSchedule,
    CustomSchedule,
    LinearHoSchedule,
    SuLinearSchedule,
)

__all__ = [
    "CosineSchedule",
    "CustomSchedule",
    "DenoisingDiffusion",
    "EDMSchedule",
    "Langevin",
    "LinearHoSchedule",
    "SampleResult",
    "Schedule",
    "StraightSchedule",
    "SuLinearSchedule",
    "SubVPSchedule",
    "VESchedule",
    "VPContinuousSchedule",
    "as_eps",
    "compiled",
    "convert_prediction",
    "ddcm_decode",
    "ddcm_encode",
    "ddcm_sample",
    "ddim",
    "ddim_encode",
    "ddpm",
    "edm_stochastic",
    "interpolate",
    "nll_bound",
    "ode_sample",
    "sde_sample",
]
