"""Every registered mixer keeps every promise."""

from collections.abc import Callable

import pytest
import torch
from tests.contract.mixer_promises import PROMISES, assert_same_plan, is_guided, random_batch

from raremix.core.protocols import Mixer
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import MIXERS


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_mixer_keeps_its_promise(name: str, promise: Callable[[Mixer], None]) -> None:
    promise(MIXERS[name]())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MIXERS)
def test_cpu_and_gpu_have_the_same_plan(name: str, dtype: torch.dtype) -> None:
    batch = random_batch(7, dtype=dtype)
    on_gpu = batch.to(torch.device("cuda"))
    mixer = MIXERS[name]()
    plan = mixer.plan(batch, batch, rng=rng(0, "mix"))
    rounding = 1e-4 if is_guided(mixer) else 0.0
    assert_same_plan(mixer.plan(on_gpu, on_gpu, rng=rng(0, "mix")), plan, rounding=rounding)
    mixed, expected = plan.apply(on_gpu), plan.apply(batch)
    assert mixed.images.is_cuda
    assert mixed.targets.is_cuda
    torch.testing.assert_close(mixed.images.cpu(), expected.images)
    torch.testing.assert_close(mixed.targets.cpu(), expected.targets)
    last = Batch(images=on_gpu.images.contiguous(memory_format=torch.channels_last), targets=on_gpu.targets)
    assert plan.apply(last).images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plan.apply_features(on_gpu.images).cpu(), plan.apply_features(batch.images))
