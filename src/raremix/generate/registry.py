"""Every generator, by the name that a file or the command line gives it."""

from collections.abc import Mapping

from raremix.generate.dcgan import DCGAN
from raremix.generate.stargan import StarGAN

GENERATORS: Mapping[str, type[DCGAN] | type[StarGAN]] = {"dcgan": DCGAN, "stargan": StarGAN}
