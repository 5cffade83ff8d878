import numpy as np
import pytest
from tests.data.toys import multilabel_manifest, toy_manifest

from raremix.core.errors import ConfigError, TargetError
from raremix.data.imbalance import Imbalance, make_imbalanced, reached_ratio, wanted_counts
from raremix.data.manifest import Manifest


def skin(*sizes: int, per_group: int = 1) -> Manifest:
    """Return training images of one class per size, and three validation and test images of each."""
    labels = [k for k, size in enumerate(sizes) for _ in range(size)]
    held = [k for k in range(len(sizes)) for _ in range(3)]
    groups = [f"p{i // per_group}" for i in range(len(labels))] + [f"h{i}" for i in range(2 * len(held))]
    splits = ["train"] * len(labels) + ["validation"] * len(held) + ["test"] * len(held)
    return toy_manifest(labels + held + held, groups=groups, splits=splits)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # 1000 r^(-k/3) with r = 1000
        ({"ratio": 1000.0}, [1000, 100, 10, 1]),
        # x = 1, 4/3, 5/3, 2, so that 1000 x^-3 = 1000, 421.875, 216, 125
        ({"ratio": 8.0, "profile": "pareto", "power": 3.0}, [1000, 422, 216, 125]),
        ({"ratio": 50.0, "profile": "step"}, [1000, 1000, 20, 20]),
        ({"ratio": 50.0, "profile": "step", "rare": 0.25}, [1000, 1000, 1000, 20]),
        ({"ratio": 1.0}, [1000, 1000, 1000, 1000]),
    ],
)
def test_profiles_by_hand(options: dict, expected: list[int]) -> None:
    made = make_imbalanced(skin(1000, 1000, 1000, 1000), Imbalance(**options))
    assert made.class_counts("train").tolist() == expected
    assert made.class_counts("test").tolist() == [3] * 4
    assert made.class_counts("validation").tolist() == [3] * 4


def test_the_ratio_is_met_where_real_classes_are_small() -> None:
    # A tail of 6 holds the head down to 300; the middle keeps what it has where the profile asks for more.
    counts = make_imbalanced(skin(500, 40, 6), Imbalance(ratio=50.0)).class_counts("train")
    assert counts.tolist() == [300, 40, 6]
    assert reached_ratio(counts) == 50
    # As found it is 83 to 1, so that a smaller ratio takes from the head, and a larger one from the tail.
    assert make_imbalanced(skin(500, 40, 6), Imbalance(ratio=10.0)).class_counts("train").tolist() == [60, 19, 6]
    assert make_imbalanced(skin(500, 40, 6), Imbalance(ratio=250.0)).class_counts("train").tolist() == [500, 32, 2]


def test_the_order_is_as_found_or_given() -> None:
    found = skin(20, 1000, 400)
    assert wanted_counts(found, Imbalance(ratio=50.0)) == {"c1": 1000, "c2": 141, "c0": 20}
    given = wanted_counts(found, Imbalance(ratio=10.0, order=("c0", "c2", "c1")))
    assert given == {"c0": 20, "c2": 6, "c1": 2}
    # The class that is short of images stands in the middle: no class may fall below the tail.
    counts = wanted_counts(found, Imbalance(ratio=10.0, order=("c1", "c0", "c2")))
    assert counts == {"c1": 200, "c0": 20, "c2": 20}


def test_whole_groups_stay_and_the_seed_decides_which() -> None:
    manifest = skin(120, 60, per_group=3)
    made = make_imbalanced(manifest, Imbalance(ratio=12.0))
    kept = made.frame.filter((made.frame["split"] == "train") & (made.frame["target:c1"] == 1))
    assert sorted(kept["group"].value_counts()["count"].to_list()) == [1, 3, 3, 3]
    again = make_imbalanced(manifest, Imbalance(ratio=12.0))
    other = make_imbalanced(manifest, Imbalance(ratio=12.0, seed=1))
    assert again.ids.tolist() == made.ids.tolist()
    assert other.ids.tolist() != made.ids.tolist()
    rarer = set(make_imbalanced(manifest, Imbalance(ratio=40.0)).ids.tolist())
    assert rarer < set(made.ids.tolist())


def test_binary_and_bounds_of_the_profiles() -> None:
    assert make_imbalanced(skin(90, 80), Imbalance(ratio=9.0)).class_counts("train").tolist() == [90, 10]
    for profile in ("exponential", "step", "pareto"):
        shares = Imbalance(ratio=77.0, profile=profile).shares(9)
        assert shares[0] == 1
        assert shares[-1] == pytest.approx(1 / 77)
        assert (np.diff(shares) <= 0).all()
    assert Imbalance(ratio=77.0, profile="pareto", power=1000.0).shares(9) == pytest.approx(
        Imbalance(ratio=77.0).shares(9), rel=0.02
    )
    assert reached_ratio(np.array([3, 0])) == float("inf")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0.5}, "at least 1, got 0.5"),
        ({"ratio": float("nan")}, "at least 1"),
        ({"ratio": 9.0, "rare": 1.0, "profile": "step"}, "between 0 and 1"),
        ({"ratio": 9.0, "power": 0.0, "profile": "pareto"}, "above 0"),
        ({"ratio": 9.0, "rare": 0.2}, 'belongs to profile = "step"'),
        ({"ratio": 9.0, "power": 2.0}, 'belongs to profile = "pareto"'),
        ({"ratio": 9.0, "order": ("c0", "c1")}, "every class once"),
        ({"ratio": 900.0}, "leaves 0.11 images of 'c2' to the 100 of 'c0': take at most 100"),
    ],
)
def test_refusals(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_imbalanced(skin(100, 50, 30), Imbalance(**options))


def test_a_class_without_training_images_is_named() -> None:
    manifest = toy_manifest([0, 0, 1, 2], splits=["train", "train", "train", "validation"])
    with pytest.raises(ConfigError, match="no training image of class c2"):
        make_imbalanced(manifest, Imbalance(ratio=2.0))


def test_multilabel_is_refused_with_the_way_out() -> None:
    manifest = multilabel_manifest(np.eye(4)).with_split(["train"] * 4)
    with pytest.raises(TargetError, match=r"\[data.thin\] counts"):
        make_imbalanced(manifest, Imbalance(ratio=2.0))
