"""``DiffusersDenoiser``: the parts of a diffusers pipeline of SD 1, SD 2 or SDXL as a ``Denoiser``.

load        model settings -> Parts        folder, hub, single_file
family      which architecture they are
text        captions -> conditions
sampling    a picture, through diffusers' pipeline made of the same parts
"""

from .denoiser import DiffusersDenoiser

__all__ = ["DiffusersDenoiser"]
