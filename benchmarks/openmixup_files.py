"""OpenMixup's mixing functions, each loaded from its file: the package as a whole asks for mmcv-full 1.x."""

import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any


def openmixup(name: str, *, is_patched: bool = True) -> Callable[..., Any]:
    """Load a mixing function.

    Args:
        name: of the function and of its file.
        is_patched: whether `.cuda()`, which these functions call wherever the images are, is made to do nothing.
    """
    folder = Path(str(importlib.metadata.distribution("openmixup").locate_file("openmixup")))
    for package in ("openmixup", "openmixup.models", "openmixup.models.utils"):
        sys.modules.setdefault(package, types.ModuleType(package))
    utils: Any = sys.modules["openmixup.models.utils"]
    utils.batch_shuffle_ddp = None  # only used to mix across processes
    utils.to_2tuple = lambda value: value if isinstance(value, tuple) else (value, value)
    spec = importlib.util.spec_from_file_location(
        f"openmixup.models.augments.{name}", folder / "models" / "augments" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with cuda_does_nothing() if is_patched else nullcontext():
        spec.loader.exec_module(module)

    def call(*values: Any, **settings: Any) -> Any:
        with cuda_does_nothing() if is_patched else nullcontext():
            return getattr(module, name)(*values, **settings)

    return call


@contextmanager
def cuda_does_nothing() -> Iterator[None]:
    """Let `.cuda()` return the tensor itself, so that code which hard-codes it can be measured on a CPU."""
    import torch

    before = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.cuda = before  # type: ignore[method-assign]
