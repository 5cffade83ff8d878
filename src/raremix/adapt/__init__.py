"""Mixers in other people's loops: a file per framework, which alone imports it.

`raremix.adapt.torchvision`, `raremix.adapt.timm`, `raremix.adapt.collate`, `raremix.adapt.lightning`. A plain PyTorch
loop needs none: `images, targets = mixer(images, targets)`.
"""
