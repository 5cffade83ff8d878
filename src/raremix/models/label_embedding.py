"""Vectors that stand for label names: read from a file, or made by a text encoder of transformers."""

import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from jaxtyping import Float

from raremix.core import files
from raremix.core.errors import ConfigError, ReadError
from raremix.core.tensors import require_safetensors
from raremix.models.head import HeadSpec

# Raise when the same encoder would give other vectors for the same words.
VERSION = 1


def label_vectors(head: HeadSpec, classes: Sequence[str], *, cache: Path) -> Float[np.ndarray, "K T"] | None:
    """Return one vector per class for a head that asks for them, else None.

    Args:
        head: says where they come from.
        classes: the labels, in order.
        cache: folder in which an encoder's vectors are kept.

    Raises:
        ConfigError: if labels and vectors do not match, or the encoder cannot be had.
        ReadError: if the file cannot be read.
    """
    if head.name != "text":
        return None
    unknown = [name for name in head.words if name not in classes]
    if unknown:
        raise ConfigError(f"[model] head.words names {', '.join(unknown)}; the classes are {', '.join(classes)}")
    if head.vectors is not None:
        return read_label_vectors(head.vectors, classes, names=head.names)
    texts = [head.words.get(name, name.replace("_", " ")) for name in classes]
    return encoded(texts, encoder=head.encoder, cache=cache)


def read_label_vectors(path: Path, classes: Sequence[str], *, names: Sequence[str] = ()) -> Float[np.ndarray, "K T"]:
    """Read the vectors of labels from a file, in the order of the classes.

    Args:
        path: .npy of shape (number of names, length), or .safetensors with one vector per label under its name.
        classes: the labels that are wanted.
        names: labels of the rows of an .npy file, which holds none itself.

    Raises:
        ReadError: if the file is missing, damaged, of another kind, or its vectors are no vectors.
        ConfigError: if a label has no vector, or the names do not match the rows.
    """
    table = _read_npy(path, names) if path.suffix == ".npy" else _read_safetensors(path)
    missing = [name for name in classes if name not in table]
    if missing:
        raise ConfigError(
            f"{path.name} has no vector for {', '.join(missing)}; it has {', '.join(list(table)[:20])}: every class "
            "needs one, under its own name"
        )
    lengths = {len(table[name]) for name in classes}
    if len(lengths) != 1:
        raise ConfigError(f"{path.name}: vectors of different lengths ({sorted(lengths)}): take all from one encoder")
    return _finite(np.stack([table[name] for name in classes]), path)


def read_all_vectors(path: Path) -> dict[str, Float[np.ndarray, " T"]]:
    """Read the vectors of all labels in a .safetensors file, by name.

    Raises:
        ReadError: if the file is missing, damaged, of another kind, or its vectors are no vectors of one length.
    """
    table = dict(_read_safetensors(path))
    lengths = {len(vector) for vector in table.values()}
    if len(lengths) > 1:
        raise ReadError(path.name, f"vectors of different lengths ({sorted(lengths)}): take all from one encoder")
    return {name: _finite(vector, path) for name, vector in table.items()}


def _finite(vectors: np.ndarray, path: Path) -> Float[np.ndarray, "..."]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ReadError(path.name, "holds values that are not finite: encode the labels again")
    return vectors


def _read_npy(path: Path, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ReadError(path.name, "is no .npy file: save the vectors with numpy.save")
        # Mapped, not read: a header may ask for more than the file holds.
        rows = np.load(path, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError:
        raise ReadError(str(path), "no such file: check [model] head.vectors") from None
    except (OSError, ValueError, EOFError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise ReadError(path.name, f"is no plain .npy file ({error})") from None
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise ReadError(path.name, f"expected floats of shape (labels, length), got {rows.dtype} {rows.shape}")
    if len(names) != len(rows) or len(set(names)) != len(names):
        raise ConfigError(
            f"{path.name} has {len(rows)} rows, and [model] head.names lists {len(set(names))} different names: say "
            "which row belongs to which label, names = [...] in the order of the rows"
        )
    return dict(zip(names, rows, strict=True))


def _read_safetensors(path: Path) -> Mapping[str, np.ndarray]:
    if path.suffix != ".safetensors":
        raise ReadError(path.name, "label vectors are a .npy or a .safetensors file; other formats can run code")
    try:
        require_safetensors(path)
        table = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ReadError(path.name, f"is not a whole safetensors file ({error}): fetch it again") from None
    for name, vector in table.items():
        if vector.ndim != 1 or vector.dtype.kind != "f":
            raise ReadError(path.name, f"{name}: expected one vector of floats, got {vector.dtype} {vector.shape}")
    return table


def encoded(texts: Sequence[str], *, encoder: str, cache: Path) -> Float[np.ndarray, "K T"]:
    """Encode texts, or return what was encoded before.

    A vector is the mean of the encoder's last layer over the text's own tokens, special ones left out.

    Args:
        texts: what is read, one per label.
        encoder: folder of a transformers model, or its id on the hub.
        cache: folder in which vectors are kept.

    Raises:
        ConfigError: if transformers is not installed, or the encoder is neither in the folder, in its cache, nor to be
            downloaded.
    """
    folder = Path(encoder).expanduser()
    content = (
        sorted((file.name, files.hash_file(file)) for file in folder.iterdir() if file.is_file())
        if (folder.is_dir())
        else encoder
    )
    place = cache / "label_vectors" / f"{files.hash_value([VERSION, content, list(texts)])[:32]}.safetensors"
    if place.is_file():
        try:
            return safetensors.numpy.load_file(place)["vectors"]
        except (OSError, KeyError, safetensors.SafetensorError):
            pass  # a damaged entry is made again
    vectors = _encode(texts, str(folder) if folder.is_dir() else encoder)
    files.folder(place.parent)
    files.write_tensors(place, {"vectors": torch.from_numpy(vectors)})
    return vectors


def _encode(texts: Sequence[str], encoder: str) -> Float[np.ndarray, "K T"]:
    try:
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise ConfigError(
            "label vectors from a text encoder need transformers: pip install 'raremix[text]', or give a file of "
            'vectors, [model] head = { name = "text", vectors = "..." }'
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
        # Other formats than safetensors can run code when they are loaded.
        model = AutoModel.from_pretrained(encoder, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"the text encoder {encoder!r} cannot be had ({reason}). Without a network give its folder, encoder = "
            '"path", fetch it once where there is one (hf download ...), or give a file of vectors: [model] head = '
            '{ name = "text", vectors = "labels.safetensors" }'
        ) from None
    model = model.eval().float()
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
            is_own = tokens.pop("special_tokens_mask")[0] == 0
            if not bool(is_own.any()):
                raise ConfigError(
                    f"the encoder {encoder!r} finds no words in {text!r}: give some in [model] head.words"
                )
            rows.append(model(**tokens).last_hidden_state[0][is_own].mean(dim=0))
    return torch.stack(rows).numpy()
