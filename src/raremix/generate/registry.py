"""Every generator, by the name that a file or the command line gives it."""

from collections.abc import Mapping

from raremix.generate.dcgan import DCGAN
from raremix.generate.diffusion import Diffusion
from raremix.generate.latent_diffusion import LatentDiffusion
from raremix.generate.stargan import StarGAN
from raremix.generate.stylegan2 import StyleGAN2
from raremix.generate.textual_inversion import TextualInversion

Known = type[DCGAN] | type[Diffusion] | type[LatentDiffusion] | type[StarGAN] | type[StyleGAN2] | type[TextualInversion]

GENERATORS: Mapping[str, Known] = {
    "dcgan": DCGAN,
    "diffusion": Diffusion,
    "latent_diffusion": LatentDiffusion,
    "stargan": StarGAN,
    "stylegan2": StyleGAN2,
    "textual_inversion": TextualInversion,
}
