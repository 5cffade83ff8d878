"""The checks of `peers.py` on losses: do they take what mixing makes, and skip what nobody labelled?"""

from collections.abc import Callable, Iterator
from typing import Any

from peers_checks import Check, Outcome


def loss_checks() -> Iterator[Check]:
    """Yield checks of losses on soft labels and on labels that are missing."""
    import torch

    from raremix.losses import binary_cross_entropy, cross_entropy

    missing = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    soft = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    mine = {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}

    def values(losses: dict[str, Callable[..., Any]], targets: Any) -> Outcome:
        found = {}
        for name, loss in losses.items():
            try:
                found[name] = f"{float(loss(torch.zeros(2, 2), targets)):.2f}"
            except Exception as error:  # noqa: BLE001 what a peer raises is what is measured
                found[name] = type(error).__name__
        text = ", ".join(f"{name}: {what}" for name, what in found.items())
        return Outcome(came=text, is_expected=all(what.replace(".", "").isdigit() for what in found.values()))

    for peer, make in PEER_LOSSES.items():
        for targets, what, expected in (
            (missing, "the label of one image of two is missing (NaN)", "the loss of the other"),
            (soft, "soft labels (B, K)", "a number"),
        ):
            yield Check(
                peer=peer,
                done=f"losses, where {what}" if targets is missing else f"losses on {what}",
                expected=expected,
                theirs=lambda make=make, targets=targets: values(make(), targets),
                ours=lambda targets=targets: values(mine, targets),
            )


def _torch_losses() -> dict[str, Any]:
    import torch

    return {"CrossEntropyLoss": torch.nn.CrossEntropyLoss(), "BCEWithLogitsLoss": torch.nn.BCEWithLogitsLoss()}


def _timm_losses() -> dict[str, Any]:
    import timm.loss

    names = ("SoftTargetCrossEntropy", "BinaryCrossEntropy", "AsymmetricLossMultiLabel")
    return {name: getattr(timm.loss, name)() for name in names}


def _kornia_losses() -> dict[str, Any]:
    import kornia.losses

    settings = {"alpha": 0.5, "reduction": "mean"}
    names = ("FocalLoss", "BinaryFocalLossWithLogits")
    return {name: getattr(kornia.losses, name)(**settings) for name in names}


def _monai_losses() -> dict[str, Any]:
    import monai.losses

    return {"FocalLoss": monai.losses.FocalLoss()}


def _smp_losses() -> dict[str, Any]:
    import segmentation_models_pytorch as smp

    return {
        "FocalLoss (multiclass)": smp.losses.FocalLoss("multiclass"),
        "FocalLoss (multilabel)": smp.losses.FocalLoss("multilabel"),
        "SoftBCEWithLogitsLoss": smp.losses.SoftBCEWithLogitsLoss(),
    }


PEER_LOSSES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": _torch_losses,
    "timm": _timm_losses,
    "kornia": _kornia_losses,
    "monai": _monai_losses,
    "segmentation-models-pytorch": _smp_losses,
}
