"""Write what diffusers' own pipelines can load."""

from dataclasses import replace
from pathlib import Path

from raremix.core import files
from raremix.generate.latent_diffusion import LatentDiffusion
from raremix.generate.latent_drawing import LatentDrawer
from raremix.generate.latent_weights import write_pipeline
from raremix.generate.textual_inversion import TextualInversion
from raremix.generate.tokens import embeddings_of, file_of


def export(drawer: LatentDrawer, method: LatentDiffusion | TextualInversion, folder: Path) -> Path | None:
    """Write what diffusers' own pipelines can load, into a folder that does not exist yet.

    A small model is written whole, as a folder in Stable Diffusion's format; low-rank additions as
    `pytorch_lora_weights.safetensors`, for `load_lora_weights`; tokens as one file each, for `load_textual_inversion`.

    Args:
        drawer: of the trained networks.
        method: that trained them.
        folder: where.

    Returns:
        The folder; None where the whole U-Net of a large model was tuned, which would be written a second time.
    """
    if isinstance(method, TextualInversion):
        for token, vectors in embeddings_of(drawer.parts).items():
            files.write_tensors(folder / file_of(token), {token: vectors.cpu().contiguous()}, {"format": "pt"})
        files.write_json(folder / "tokens.json", method.table or {})
        return folder
    if not method.weights:
        return write_pipeline(replace(drawer.parts, autoencoder=drawer.autoencoder), folder)
    if method.tune == "full":
        return None
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers  # noqa: PLC0415 - heavy, and an extra
    from peft.utils import get_peft_model_state_dict  # noqa: PLC0415

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(drawer.parts.unet))
    tensors = {f"unet.{name}": value.contiguous().cpu() for name, value in state.items()}
    files.write_tensors(folder / "pytorch_lora_weights.safetensors", tensors, {"format": "pt"})
    return folder
