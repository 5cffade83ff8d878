"""ClassAttention: where the class token of a vision transformer looks."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.explain.network import as_map, images_for, inner_network, undisturbed
from raremix.explain.scale import over_peak, working_type


@dataclass(frozen=True, kw_only=True)
class ClassAttention:
    """Attention of the class token to each patch in the last block, mean over heads, as TransMix [1] uses it.

    Divided by its largest value, so that ratios, and with them shares of the attention, stay what they are. The targets
    are not looked at: the class token speaks for whatever the network sees. The network is run for evaluation and left
    as it was; its last block computes attention step by step, instead of in one fused call, only inside this call.

    [1] Chen et al., "TransMix: Attend to Mix for Vision Transformers", CVPR 2022, https://arxiv.org/abs/2111.09833

    Args:
        model: a timm network with a class token and blocks of self-attention (ViT, DeiT, BEiT, EVA), or what wraps one.

    Raises:
        ConfigError: if it is another kind of network.

    Example:
        >>> import timm, torch
        >>> options = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=2)
        >>> net = timm.create_model("vit_tiny_patch16_224", **options)
        >>> ClassAttention(model=net)(torch.rand(5, 3, 32, 32), torch.zeros(5, 2)).shape
        torch.Size([5, 1, 4, 4])
    """

    model: nn.Module = field(repr=False)

    def __post_init__(self) -> None:
        self._attention()

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        """Return the attention map, one value per patch."""
        attention = self._attention()
        with undisturbed(self.model):
            inputs = images_for(self.model, images)
            weights = _attention_weights(self.model, attention, inputs)
            tokens = weights[:, :, 0].mean(dim=1)[..., None].to(working_type(images))
            return over_peak(as_map(tokens, self.model, inputs))

    def _attention(self) -> Any:
        network = inner_network(self.model)
        blocks = getattr(network, "blocks", None)
        last = blocks[-1] if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) else None
        attention = getattr(last, "attn", None)
        is_plain = isinstance(getattr(attention, "attn_drop", None), nn.Module) and hasattr(attention, "fused_attn")
        if not is_plain or getattr(network, "cls_token", None) is None:
            raise ConfigError(
                "class attention needs a vision transformer of timm with a class token, such as vit_small_patch16_224: "
                f"{type(network).__name__} is none: use another importance map, such as GradCAM"
            )
        return attention


def _attention_weights(model: nn.Module, attention: Any, images: Tensor) -> Float[Tensor, "B heads N N"]:
    """Run the network, and return what the block's dropout of attention weights is given."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Any) -> None:
        seen[:] = inputs

    is_fused = attention.fused_attn
    handle = attention.attn_drop.register_forward_pre_hook(keep)
    try:
        attention.fused_attn = False
        model(images)
    finally:
        attention.fused_attn = is_fused
        handle.remove()
    return seen[0]
