"""What is minimised: noise and timesteps of a pass, the loss of each picture, and its weight.

Everything drawn is a function of (seed, step, place in the batch), and nothing here waits for the device.
"""

from .draws import Draw, draw
from .losses import losses
from .timesteps import TIMESTEPS, fractions
from .weightings import WEIGHTINGS

__all__ = ["TIMESTEPS", "WEIGHTINGS", "Draw", "draw", "fractions", "losses"]
