"""Generators: networks that draw images of a class, or show an image as one of another class."""

from raremix.generate.dcgan import DCGAN, NoiseDrawer
from raremix.generate.diffusion import Diffusion, PixelDrawer
from raremix.generate.folder import GeneratorCard, generator_hash, load_generator, read_card, save_generator
from raremix.generate.form import Form
from raremix.generate.latent_diffusion import LatentDiffusion
from raremix.generate.latent_drawing import LatentDrawer
from raremix.generate.latent_export import export
from raremix.generate.method import ClassTranslator, GeneratorMethod, ImageGenerator, SizedMethod, WordedMethod
from raremix.generate.registry import GENERATORS
from raremix.generate.sampling import sample
from raremix.generate.stargan import StarGAN
from raremix.generate.stargan_drawing import StarTranslator
from raremix.generate.stylegan2 import StyleDrawer, StyleGAN2
from raremix.generate.textual_inversion import TextualInversion

__all__ = [
    "DCGAN",
    "GENERATORS",
    "ClassTranslator",
    "Diffusion",
    "Form",
    "GeneratorCard",
    "GeneratorMethod",
    "ImageGenerator",
    "LatentDiffusion",
    "LatentDrawer",
    "NoiseDrawer",
    "PixelDrawer",
    "SizedMethod",
    "StarGAN",
    "StarTranslator",
    "StyleDrawer",
    "StyleGAN2",
    "TextualInversion",
    "WordedMethod",
    "export",
    "generator_hash",
    "load_generator",
    "read_card",
    "sample",
    "save_generator",
]
