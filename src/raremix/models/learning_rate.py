"""What learning rate a network usually takes."""

from timm.models import is_model_in_modules

FROM_SCRATCH = 1e-3
LAST_LAYER = 3e-3
FINE_TUNED = {"convolutional": 3e-4, "other": 1e-4}

CONVOLUTIONAL = {
    *("byobnet", "cspnet", "cspnext", "densenet", "dla", "dpn", "efficientnet", "ghostnet", "hardcorenas", "hgnet"),
    *("hrnet", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2", "mobilenetv3", "nasnet", "pnasnet"),
    *("regnet", "repghost", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "sknet"),
    *("tresnet", "vovnet", "xception", "xception_aligned"),
}
"""timm's families of convolutional networks with batch normalisation; ConvNeXt trains as transformers do."""


def usual_learning_rate(name: str, *, fine_tuned: bool, frozen: bool = False) -> float:
    """Return a peak learning rate at which AdamW usually trains a network well, for batches of 32 to 128 images.

    1e-3 from scratch. With loaded weights 3e-4 for convolutional networks with batch normalisation, 1e-4 for all others
    (transformers, ConvNeXt, networks without normalisation), whose weights a larger rate undoes: published fine-tuning
    takes about 5e-5 there (ConvNeXt, https://arxiv.org/abs/2201.03545, appendix A). 3e-3 for a last layer alone, whose
    loss is convex. A start for a grid, not an optimum.

    Args:
        name: of a network of timm, with or without the tag of its weights.
        fine_tuned: whether it starts from loaded weights.
        frozen: whether its last layer alone is trained.

    Example:
        >>> usual_learning_rate("resnet18", fine_tuned=True), usual_learning_rate("convnext_tiny", fine_tuned=True)
        (0.0003, 0.0001)
    """
    if frozen:
        return LAST_LAYER
    if not fine_tuned:
        return FROM_SCRATCH
    is_convolutional = is_model_in_modules(name.split(".", maxsplit=1)[0], CONVOLUTIONAL)
    return FINE_TUNED["convolutional" if is_convolutional else "other"]
