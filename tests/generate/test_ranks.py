"""Every generator over two processes: one model, the same when resumed, and the one that a process alone trains."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.generate.ranks import SHARED, tiny_inversion, train_all
from tests.generate.toys import FORM, METHODS, SPEC, feed, run, write_tiny_pipeline
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import RankedTrainable
from raremix.core.ranks import Ranks
from raremix.generate import GeneratorMethod
from raremix.generate.ada import KINDS, draw_adaptation
from raremix.generate.ada_apply import adapt
from raremix.train import fit
from raremix.train.ranked import is_shared
from raremix.train.spec import make_fabric

pytestmark = pytest.mark.usefixtures("no_fsync")

FEW, MORE = ("dcgan", "stylegan2"), ("dcgan_hinge", "diffusion", "latent_diffusion", "stargan", "textual_inversion")
HALVES = tuple(Ranks(rank=rank, count=2) for rank in (0, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left that trained some methods: one start for all of them, which is what takes long."""
    return launched({name: METHODS[name] for name in FEW}, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GeneratorMethod]:
    tiny = write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny", channels=1)
    return {**{name: METHODS[name] for name in MORE[:-1]}, MORE[-1]: tiny_inversion(tiny)}


@pytest.fixture(scope="module")
def others(methods: dict[str, GeneratorMethod], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the other methods, whose libraries alone take a while to load."""
    return launched(methods, tmp_path_factory.mktemp("more"))


def launched(methods: Mapping[str, GeneratorMethod], folder: Path) -> Path:
    make_fabric(replace(SHARED, devices=2)).launch(partial(train_all, methods=methods, folder=folder))
    return folder


def said(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", FEW)
def test_both_ranks_hold_the_same_and_resume_to_the_same(name: str, trained: Path) -> None:
    """Each saw other images: without a mean over their gradients, statistics and states they would drift apart."""
    compare(trained, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_so_do_the_other_methods(name: str, others: Path) -> None:
    compare(others, name)


def compare(folder: Path, name: str) -> None:
    first, second = (one[name] for one in said(folder))
    assert first["whole"] == second["whole"]
    assert first["cut"] == second["cut"] == first["whole"]
    assert first["exact"]
    assert second["exact"]
    logs = [(folder / name / way / "log.jsonl").read_bytes() for way in ("whole", "cut")]
    assert logs[0] == logs[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusion", "stargan", "textual_inversion"])
def test_two_ranks_follow_one(name: str, methods: dict[str, GeneratorMethod], others: Path, tmp_path: Path) -> None:
    """Without statistics of a batch, two ranks do what one does, but for the order in which numbers are added."""
    alone = run(methods[name], tmp_path, spec=SHARED)
    assert alone is not None
    together = load_file(others / f"{name}.safetensors")
    start = methods[name].networks(FORM, seed=0)
    moved, apart = [], []
    for part, weights in alone.weights.items():
        begun = start[part].state_dict()
        for key, value in weights.items():
            moved.append((value - begun[key]).flatten().double())
            apart.append((value - together[f"{part}.{key}"]).flatten().double())
    # A weight whose gradient is zero but for rounding, a bias before a normalisation, moves by chance.
    assert torch.cat(apart).norm() < 0.05 * torch.cat(moved).norm()


def test_augmentation_adapts_alike(trained: Path) -> None:
    first, second = (one["stylegan2"]["memory"] for one in said(trained))
    assert first["probability"] == second["probability"]
    # Four steps of four images, of a span of a hundred.
    assert abs(first["probability"] - 0.5) == pytest.approx(0.16)
    assert first["signs"][1] == 8, "two steps of four images since"


def test_gradients_that_some_ranks_lack_and_statistics(trained: Path) -> None:
    for one in said(trained):
        assert one["missing"] == [[1.5, 3.0], [2.0, 4.0], None]
        assert one["statistics"] == [2.0]


def test_all_ranks_stop_where_one_breaks(trained: Path) -> None:
    first, second = (one["broken"] for one in said(trained))
    assert first == second
    assert "loss is nan at step 4" in first
    assert "step-00000002" in first


# Within one process


@pytest.mark.parametrize("name", ["diffusion", "stargan"])
def test_the_mean_of_the_shares_gradients_is_that_of_the_whole(name: str) -> None:
    method = METHODS[name]
    whole = gradients(method, Ranks())
    halves = [gradients(method, ranks) for ranks in HALVES]
    assert whole.keys() == halves[0].keys() == halves[1].keys()
    for key, value in whole.items():
        torch.testing.assert_close((halves[0][key] + halves[1][key]) / 2, value, rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(halves[0][key], value, rtol=0.05) for key, value in whole.items())


def gradients(method: GeneratorMethod, ranks: Ranks) -> dict[str, Tensor]:
    """Return every gradient of a step's every phase, on one rank's share."""
    networks, found = method.networks(FORM, seed=0), {}
    task = method.training(networks, FORM, seed=0, extras={"ranks": ranks})
    batch = feed(method, batch_size=4, ranks=ranks).batch(3)
    for phase, optimizer in task.optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[]):
            task.loss(phase, batch, step=3)["loss"].backward()
        for part, network in networks.items():
            for key, parameter in network.named_parameters():
                if parameter.grad is not None:
                    found[f"{phase}/{part}/{key}"] = parameter.grad.clone()
    return found


def test_every_place_in_a_batch_is_augmented_alike_on_any_rank() -> None:
    images = torch.rand(6, 1, 32, 32) * 2 - 1
    stream = np.random.default_rng(0)
    drawn = draw_adaptation(6, side=32, channels=1, kinds=frozenset(KINDS), probability=0.6, rng=stream)
    whole = adapt(images, drawn)
    for ranks in HALVES:
        torch.testing.assert_close(adapt(images[ranks.rows(3)], drawn.own(ranks)), whole[ranks.rows(3)])
    noise = [ranks.normal((3, 2), seed=4, device=torch.device("cpu")) for ranks in HALVES]
    assert torch.equal(torch.cat(noise), Ranks().normal((6, 2), seed=4, device=torch.device("cpu")))


def test_the_gradient_penalty_weighs_by_the_whole_batch() -> None:
    """Its weight follows the batch size, of which a rank has a share."""
    method = METHODS["stylegan2"]
    found = []
    for ranks, size in ((Ranks(), 4), (HALVES[0], 4)):
        task = method.training(method.networks(FORM, seed=0), FORM, seed=0, extras={"ranks": ranks})
        losses = task.loss("r1", feed(method, batch_size=size, ranks=ranks).batch(0), step=0)
        found.append(float((losses["loss"] / losses["penalty"]).detach()))
    assert found[0] == pytest.approx(found[1])


def test_a_trainable_built_for_another_rank_is_refused(tmp_path: Path) -> None:
    method = METHODS["dcgan"]
    task = method.training(method.networks(FORM, seed=0), FORM, seed=0, extras={"ranks": HALVES[1]})
    assert isinstance(task, RankedTrainable)
    assert is_shared(task, HALVES[1])
    with pytest.raises(ConfigError, match="built for rank 1 of 2, and the loop is rank 0 of 1"):
        fit(task, feed(method), spec=SPEC, fabric=make_fabric(SPEC), folder=tmp_path, identity="toy")
