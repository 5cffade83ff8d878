"""Generators: networks that draw images of a class, or show an image as one of another class."""

from raremix.generate.dcgan import DCGAN, NoiseDrawer
from raremix.generate.folder import GeneratorCard, generator_hash, load_generator, read_card, save_generator
from raremix.generate.form import Form
from raremix.generate.method import GeneratorMethod, ImageGenerator
from raremix.generate.registry import GENERATORS
from raremix.generate.sampling import sample
from raremix.generate.stargan import StarGAN, StarTranslator

__all__ = [
    "DCGAN",
    "GENERATORS",
    "Form",
    "GeneratorCard",
    "GeneratorMethod",
    "ImageGenerator",
    "NoiseDrawer",
    "StarGAN",
    "StarTranslator",
    "generator_hash",
    "load_generator",
    "read_card",
    "sample",
    "save_generator",
]
