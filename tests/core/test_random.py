import ast
import inspect
import random
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy import stats

import raremix
from raremix.core.errors import UnknownNameError
from raremix.core.random import PURPOSES, Purpose, RowStreams, ambient_rng, rng, torch_seed

ADDRESSES: dict[tuple[int, str, tuple[int, ...]], tuple[int, int]] = {
    (0, "init", ()): (0xECDBE3EAFB1FBC99, 0x10FEB613EDC0C043),
    (0, "mix", (7,)): (0xE65A102DF9BDD1AE, 0x1560A285C8AE84D4),
    (0, "mix", (7, 1)): (0x17A27048D53DB7D2, 0x15B34FD429CE2D01),
    (3, "shuffle", (2,)): (0x3718CD18684F04BF, 0xB612DB76DBF6628A),
    (-1, "augment", (5,)): (0xCC13C9E6E8DEB081, 0x573DF6BA29F384E8),
    (2**70, "sample", (0,)): (0x7DAC3EC660501895, 0x7650DDF1B2328E55),
    (1, "phantom", (2, 3, 4)): (0x0DAEDF07A6EFB6E7, 0xF0F3BDF02DB58467),
    (1, "phantom", (4, 3, 2)): (0xE185C163AF1B632B, 0x7AD75716CF21ABD2),
}
"""What these addresses gave when the package was first written: every published run depends on them."""


def test_philox_itself() -> None:
    """The generator that the addresses are built on, against values computed independently."""
    bits = np.random.Philox(key=[0x0123456789ABCDEF, 0xFEDCBA9876543210], counter=[0, 0, 1, 2])
    raw = bits.random_raw(6)
    assert [f"{word:016x}" for word in raw] == [
        "71448244fc18c032",
        "a9c4328aac40d11e",
        "22e2d006862deb49",
        "78b2df0c2f810760",
        "009d50e0fb6e122b",
        "3046f759b6e1ab18",
    ]
    again = np.random.Generator(np.random.Philox(key=[0x0123456789ABCDEF, 0xFEDCBA9876543210], counter=[0, 0, 1, 2]))
    assert again.random(3).tolist() == [0.44245161232183516, 0.6631499851757809, 0.13627338561325752]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_stay_where_they_are(address: tuple[int, str, tuple[int, ...]]) -> None:
    seed, purpose, index = address
    raw = rng(seed, cast(Purpose, purpose), *index).bit_generator.random_raw(2)
    assert tuple(int(word) for word in raw) == ADDRESSES[address]


def test_distribution_methods_stay_as_they_are() -> None:
    """Numpy promises the raw words only. If this fails after an upgrade, runs cannot be repeated across it."""
    stream = rng(0, "augment", 3)
    assert stream.random(3).tolist() == [0.6874523786892232, 0.2924597935633264, 0.4087242894596439]
    assert stream.integers(0, 1000, 5).tolist() == [608, 308, 33, 588, 351]
    assert stream.permutation(8).tolist() == [2, 1, 3, 5, 7, 4, 0, 6]
    assert stream.standard_normal(2).tolist() == [1.0712763668394591, 0.8833486644621106]
    assert stream.beta(0.4, 0.4, 2).tolist() == [0.9955902141769618, 0.7565868486354529]
    assert stream.permuted(np.arange(6).reshape(2, 3), axis=1).tolist() == [[2, 0, 1], [3, 4, 5]]
    assert stream.uniform(1, 2) == 1.4203011665500127
    assert stream.choice(10, 3, replace=False).tolist() == [0, 6, 2]
    assert torch_seed(0, "init") == 8533742905612820043
    assert torch_seed(0, "dropout", 5, 1) == 1225914415747251787


def test_no_two_addresses_share_a_value() -> None:
    """Ten seeds, every purpose, three epochs, and rows within each: no value twice, no trend from one to the next."""
    rows = 150
    unchecked = inspect.unwrap(rng)
    values = np.array(
        [
            unchecked(seed, cast(Purpose, purpose), epoch, row).random()
            for seed, purpose, epoch, row in product(range(10), sorted(PURPOSES), range(3), range(rows))
        ]
    )
    assert len(values) == 10 * len(PURPOSES) * 3 * rows
    assert len(np.unique(values)) == len(values)
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    cube = values.reshape(10, len(PURPOSES), 3, rows)
    for axis in range(3):
        first, second = np.take(cube, 0, axis=axis).ravel(), np.take(cube, 1, axis=axis).ravel()
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_streams_do_not_run_into_each_other() -> None:
    """Seed + index as a key would make row 1 of run 0 the same as row 0 of run 1."""
    first = rng(0, "augment", 0).bit_generator.random_raw(50_000)
    for other in (rng(0, "augment", 1), rng(1, "augment", 0), rng(0, "augment", 0, 0), rng(0, "augment")):
        assert not set(first.tolist()) & set(other.bit_generator.random_raw(50_000).tolist())


def test_how_long_an_address_is_matters() -> None:
    seen = {
        rng(0, "mix", *index).random() for index in [(), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (1,), (1, 0), (0, 1)]
    }
    assert len(seen) == 8


def test_permutations_of_small_sets_are_uniform() -> None:
    """Rare classes are small: a weak shuffle shows first where there are few rows."""
    count = np.zeros((6, 6))
    orders = set()
    for epoch in range(3000):
        order = rng(0, "shuffle", epoch).permutation(6)
        count[np.arange(6), order] += 1
        orders.add(tuple(order.tolist()))
    assert len(orders) > 700  # of 720
    assert 0.3 < ((count - 500) ** 2 / 500).sum() / 25 < 2


def test_a_generator_belongs_to_its_caller() -> None:
    held = rng(0, "mix", 7)
    held.random(100)
    assert rng(0, "mix", 7).random() != held.random()
    assert rng(0, "mix", 7).random() == rng(0, "mix", 7).random()


def test_purposes_are_closed() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown random purpose 'mixx': did you mean 'mix'\?"):
        inspect.unwrap(rng)(0, cast(Purpose, "mixx"))


def test_calls_without_a_stream_get_fresh_ones() -> None:
    assert ambient_rng("mix").random() != ambient_rng("mix").random()


def test_global_states_stand_still() -> None:
    before = (torch.get_rng_state(), repr(np.random.get_state()), random.getstate())  # noqa: NPY002
    rng(0, "mix", 1).random(10)
    torch_seed(0, "init")
    ambient_rng("mix").random()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (repr(np.random.get_state()), random.getstate())  # noqa: NPY002


def test_nobody_else_makes_generators() -> None:
    """Every draw of the package has an address: no other generator is built, and no global one is used."""
    source = Path(str(raremix.__file__)).parent
    found = []
    for path in source.rglob("*.py"):
        if path.name == "random.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if any(keyword.arg == "generator" for keyword in node.keywords):
                    continue  # latents: from a generator with an address of its own
                if name.startswith(("np.random.", "numpy.random.", "random.")) or name in {
                    "torch.rand",
                    "torch.randn",
                    "torch.randint",
                    "torch.randperm",
                    "torch.bernoulli",
                    "default_rng",
                }:
                    found.append(f"{path.relative_to(source)}:{node.lineno}: {name}")
    # The speed test of `raremix doctor` may take any pixels.
    assert [line for line in found if not line.startswith("study/doctor.py")] == []


def test_row_streams_by_hand() -> None:
    rows = RowStreams([rng(0, "latent", n) for n in (4, 2)])
    assert rows.random(2).tolist() == [rng(0, "latent", n).random() for n in (4, 2)]
    assert rows.standard_normal((2, 3)).shape == (2, 3)
    assert rows.standard_normal((2, 3), dtype=np.float32).dtype == np.float32
    assert rows.standard_normal(2).shape == (2,)
    rows = RowStreams([rng(0, "latent", n) for n in (4, 2)])
    assert rows.random() == rng(0, "latent", 4).random(), "what is not by row is the first row's"
    assert rows.standard_normal(3).shape == (3,)
