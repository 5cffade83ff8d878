"""Whole files, atomically and durably: bytes, text, JSON, tables, tensors, images, arrays; and downloads in pieces."""

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import safetensors.torch
from PIL import Image
from torch import Tensor

from raremix.core import files
from raremix.core.errors import CorruptError, ReadError
from raremix.core.files.disk import storage
from raremix.core.files.temporary import appear, temporary_beside


def folder(path: Path) -> Path:
    """Make a folder with its parents, durably, and return it.

    Raises:
        StorageError: if it cannot be made.
    """
    with storage(path):
        missing = []
        here = path
        while not here.exists():
            missing.append(here)
            here = here.parent
        for new in reversed(missing):
            try:
                files.DISK.make_folder(new)
            except FileExistsError:
                if not new.is_dir():
                    raise
            files.DISK.sync_folder(new.parent)
    return path


def write_with(path: Path, writer: Callable[[BinaryIO], None], *, need: int | None = None) -> Path:
    """Write a file atomically and durably; its mode is what the umask says.

    Args:
        path: the target; its folder is made, a symbolic link is followed.
        writer: writes into an open binary file.
        need: size in bytes, for the message of a full disk.

    Raises:
        StorageError: naming the path, and the free space where the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    folder(path.parent)
    with storage(path, need=need), temporary_beside(path) as temporary:
        try:
            with temporary.open("xb") as file:
                writer(file)
                files.DISK.sync(file)
            files.DISK.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                files.DISK.remove(temporary)
            raise
        files.DISK.sync_folder(path.parent)
    return path


def write_resumable(path: Path, append: Callable[[BinaryIO], None], *, verify: Callable[[Path], None]) -> Path:
    """Write a file in as many attempts as it takes: what one attempt wrote stays beside the target as `<name>.part`.

    Args:
        path: the target; it appears whole, or not at all.
        append: writes what is missing to an open binary file, whose position says how much is there; it may truncate.
        verify: raises `ReadError` if the whole file is not what it should be; the part is then removed.

    Raises:
        StorageError: naming the path, and the free space where the disk is full.
        ReadError: from `verify`.
    """
    part = path.with_name(f"{path.name}.part")
    folder(path.parent)
    with storage(path):
        with part.open("ab") as file:
            try:
                append(file)
            finally:
                files.DISK.sync(file)
        try:
            verify(part)
        except ReadError:
            files.DISK.remove(part)
            raise
        files.DISK.replace(part, path)
        files.DISK.sync_folder(path.parent)
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_with(path, lambda file: files.DISK.write(file, data), need=len(data))


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pl.DataFrame) -> Path:
    """Write a table as Parquet, atomically."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return write_bytes(path, buffer.getvalue())


def write_csv(path: Path, frame: pl.DataFrame) -> Path:
    """Write a table as CSV, atomically."""
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    return write_bytes(path, buffer.getvalue())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write tensors as safetensors, atomically; tensors that share their memory are written once each."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        plain[name] = value
    return write_bytes(path, safetensors.torch.save(plain, dict(metadata or {})))


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an image as PNG, atomically.

    Args:
        path: the target.
        image: uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or uint16 of shape (H, W).
    """
    plain = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plain)).save(buffer, format="PNG")
    return write_bytes(path, buffer.getvalue())


def stream_array(path: Path, blocks: Iterable[np.ndarray]) -> str:
    """Write blocks one after another as raw C-ordered values, atomically, in the memory of one block.

    Returns:
        The BLAKE2b hash of what was written, in hexadecimal.
    """
    digest = blake2b(digest_size=32)

    def writer(file: BinaryIO) -> None:
        for block in blocks:
            data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
            digest.update(data)
            files.DISK.write(file, data)

    write_with(path, writer)
    return digest.hexdigest()


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    with storage(path):
        files.DISK.remove(path)


def secret(path: Path, *, size: int = 32) -> bytes:
    """Return a file's secret bytes; the first call makes them, readable by their owner alone.

    Of several processes that make them at once, one wins and all return the same.

    Args:
        path: the file.
        size: number of bytes.

    Raises:
        StorageError: if it can be neither read nor made.
        CorruptError: if it is of another size, or others may read it.
    """
    if not path.exists():
        folder(path.parent)
        with storage(path), temporary_beside(path) as draft:
            try:
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    files.DISK.write(file, os.urandom(size))
                    files.DISK.sync(file)
                with suppress(FileExistsError):
                    appear(draft, path)
                    path.chmod(0o600)
            finally:
                files.DISK.remove(draft)
            files.DISK.sync_folder(path.parent)
    with storage(path):
        mode, value = path.stat().st_mode, path.read_bytes()
    if os.name == "posix" and mode & 0o077:
        raise CorruptError(f"{path} is a secret that others may read: run chmod 600 on it")
    if len(value) != size:
        raise CorruptError(f"{path} holds {len(value)} bytes, expected {size}: delete it; a new secret is made")
    return value
