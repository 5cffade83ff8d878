"""Ranked suspects on hand-made geometry: what must come first, what must not matter, and what must not break."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from raremix.core.errors import DataError
from raremix.data.isolation import joining_distances, tenth_distances
from raremix.data.label_doubt import doubt_labels
from raremix.data.neighbours import nearest, unit
from raremix.data.suspects import Suspects, outliers, rank_suspects
from raremix.data.thumbnails import thumbnails


def cloud(count: int, *, seed: int = 0, dimensions: int = 6, width: float = 0.3) -> np.ndarray:
    """Return directions around the first axis."""
    rows = np.random.default_rng(seed).normal(scale=width, size=(count, dimensions))
    rows[:, 0] += 1
    return rows


def by_kind(found: list[Suspects]) -> dict[str, Suspects]:
    return {entry.kind: entry for entry in found}


def two_classes(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return two well separated classes, one label of which (row 3) is wrong."""
    labels = np.arange(count) % 2
    features = cloud(count)
    features[:, 1] += 2.0 * labels
    given_labels = labels.copy()
    given_labels[3] = 1 - labels[3]
    return features, np.eye(2)[given_labels]


def test_a_copy_comes_first_and_few_pairs_are_worth_a_look() -> None:
    features = cloud(80)
    features[50] = features[7] + 1e-3
    found = by_kind(rank_suspects(features))["near-duplicate"]
    assert found.ids[0].tolist() == [7, 50]
    assert 1 <= found.look_at <= 4
    assert (np.diff(found.scores) <= 0).all()


def test_a_close_pair_counts_for_more_where_images_are_usually_far_apart() -> None:
    dense, sparse = cloud(40, width=0.01, seed=1), cloud(40, width=0.4, seed=2)
    sparse[:, 1] += 6
    features = np.concatenate([dense, sparse])
    features[79] = features[40] + 0.02
    apart = nearest(unit(features), count=1).distances[:, 0]
    assert apart[79] > apart[:40].min()  # by the distance alone, a pair of the dense part would come first
    assert by_kind(rank_suspects(features))["near-duplicate"].ids[0].tolist() == [40, 79]


def test_copies_of_copies_all_come_before_the_rest() -> None:
    features = cloud(60)
    family = [5, 11, 23, 42]
    features[family] = features[5] + 1e-4 * np.arange(4)[:, None]
    first = by_kind(rank_suspects(features))["near-duplicate"].ids[:6].tolist()
    assert sorted(first) == sorted([a, b] for i, a in enumerate(family) for b in family[i + 1 :])


def test_a_pair_is_listed_once_and_never_with_itself() -> None:
    features = np.repeat(cloud(10), 3, axis=0)
    pairs = by_kind(rank_suspects(features))["near-duplicate"].ids
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_images_of_one_patient_are_not_paired() -> None:
    features = cloud(50)
    features[1], features[3] = features[0] + 1e-4, features[2] + 1e-3
    groups = np.array(["same", "same", *(f"p{i}" for i in range(48))])
    found = by_kind(rank_suspects(features, groups=groups))["near-duplicate"]
    assert found.ids[0].tolist() == [2, 3]
    assert [0, 1] not in found.ids.tolist()


def test_both_representations_must_agree() -> None:
    features, small = cloud(60), cloud(60, seed=9)
    features[10], features[20] = features[0] + 1e-3, features[1] + 1e-3
    small[20] = small[1] + 1e-3
    found = by_kind(rank_suspects(features, thumbnails=small))["near-duplicate"]
    assert found.ids[0].tolist() == [1, 20]


def test_an_image_and_a_small_cluster_far_away_are_off_topic_and_a_large_one_is_not() -> None:
    features = np.concatenate([cloud(60, width=0.1), cloud(40, width=0.1, seed=1)[:, [1, 0, 2, 3, 4, 5]]])
    strange = [17, 18, 19, 71]
    features[strange[:3]] = [0, 0, 1, 0, 0, 0] + 1e-3 * np.arange(3)[:, None]
    features[71] = [0, 0, 0, 0, 0, -1.0]
    found = by_kind(rank_suspects(features))["off-topic"]
    assert set(found.ids[:4].tolist()) == set(strange)
    assert 4 <= found.look_at <= 10


@pytest.mark.parametrize("seed", range(3))
def test_joining_distances_are_those_of_single_linkage(seed: int) -> None:
    rows = unit(cloud(30, seed=seed))
    apart = np.maximum(1 - rows @ rows.T, 0).astype(np.float64)
    np.fill_diagonal(apart, 0)
    members = {i: [i] for i in range(30)}
    expected = np.zeros(30)
    for place, (a, b, length, _) in enumerate(linkage(squareform(apart, checks=False), "single")):
        one, other = members.pop(int(a)), members.pop(int(b))
        for mine, others in ((one, other), (other, one)):
            if len(mine) <= min(3, len(others)):
                expected[mine] = length
        members[30 + place] = one + other
    np.testing.assert_allclose(joining_distances(rows, nearest(rows, count=29)), expected, atol=1e-5)


def test_parts_of_the_graph_that_fall_apart_are_joined_exactly() -> None:
    rows = unit(np.concatenate([cloud(60, width=0.05), -cloud(6, width=0.01)]))
    few, all_of_them = (joining_distances(rows, nearest(rows, count=count)) for count in (4, 65))
    np.testing.assert_allclose(few[60:], all_of_them[60:], atol=1e-6)
    assert few[60:].min() > 1.5


def test_the_distance_to_the_nearest_tenth_by_hand() -> None:
    rows = unit(np.array([[1.0, 0]] * 9 + [[0, 1.0]]))
    assert tenth_distances(rows, ids=np.arange(10)).tolist() == [0.0] * 9 + [1.0]


def test_a_wrong_label_comes_first() -> None:
    features, targets = two_classes()
    found = by_kind(rank_suspects(features, targets))["label error"]
    assert found.ids[0] == 3
    assert 1 <= found.look_at <= 6
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_a_group_is_never_judged_by_a_classifier_that_knew_it() -> None:
    """Two identical images with the same wrong label believe each other, unless they are known as one patient."""
    features, targets = two_classes(100)
    features[5], targets[5] = features[3], targets[3]
    features, targets = np.concatenate([features] * 2), np.concatenate([targets] * 2)
    groups = np.arange(200) % 100
    groups[[5, 105]] = 3
    doubt = doubt_labels(unit(features), targets, groups=groups)
    assert doubt is not None
    assert set(doubt.rows[np.argsort(-doubt.scores)][:4].tolist()) == {3, 5, 103, 105}


def test_rows_without_a_label_are_not_in_the_list_of_labels() -> None:
    features, targets = two_classes()
    targets[10:20] = np.nan
    found = by_kind(rank_suspects(features, targets))
    assert len(found["label error"].ids) == 50
    assert not np.isin(found["label error"].ids, np.arange(10, 20)).any()
    assert len(found["off-topic"].ids) == 60


def test_of_several_labels_each_is_judged_alone() -> None:
    count = 200
    features = cloud(count)
    truth = np.stack([np.arange(count) % 2, np.arange(count) % 20 == 0], axis=1).astype(float)
    features[:, 1] += 2 * truth[:, 0]
    features[:, 2] += 3 * truth[:, 1]
    targets = truth.copy()
    targets[7, 0], targets[33, 1] = 1 - truth[7, 0], 1.0
    targets[50:60, 0] = np.nan
    targets[100:110] = np.nan
    found = by_kind(rank_suspects(features, targets, is_multilabel=True))["label error"]
    assert set(found.ids[:2].tolist()) == {7, 33}
    assert len(found.ids) == 190


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param(None, id="no labels"),
        pytest.param(np.full((30, 2), np.nan), id="all empty"),
        pytest.param(np.tile([1.0, 0.0], (30, 1)), id="one class"),
        pytest.param(np.zeros((30, 0)), id="no columns"),
    ],
)
@pytest.mark.parametrize("is_multilabel", [False, True])
def test_without_two_labels_there_is_no_list_of_labels(targets: np.ndarray | None, is_multilabel: bool) -> None:
    found = by_kind(rank_suspects(cloud(30), targets, is_multilabel=is_multilabel))
    assert set(found) == {"near-duplicate", "off-topic"}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fewer_images_than_neighbours(count: int) -> None:
    targets = np.eye(2)[np.arange(count) % 2]
    found = by_kind(rank_suspects(cloud(count), targets))
    assert len(found["near-duplicate"].ids) == count * (count - 1) // 2
    assert sorted(found["off-topic"].ids.tolist()) == list(range(count))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_that_are_all_the_same(value: float) -> None:
    found = by_kind(rank_suspects(np.full((40, 4), value), np.eye(2)[np.arange(40) % 2]))
    assert np.isfinite(found["near-duplicate"].scores).all()
    assert np.isfinite(found["off-topic"].scores).all()
    assert found["off-topic"].look_at == 0


def test_one_group_has_no_pairs() -> None:
    found = by_kind(rank_suspects(cloud(20), groups=np.zeros(20, dtype=int)))
    assert found["near-duplicate"].ids.shape == (0, 2)
    assert found["near-duplicate"].look_at == 0


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**16))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    features, targets = two_classes()
    features[40] = features[20] + 1e-3
    ids = np.random.default_rng(1).permutation(1000)[:60]
    order = np.random.default_rng(seed).permutation(60)
    one = rank_suspects(features, targets, ids=ids)
    other = rank_suspects(features[order], targets[order], ids=ids[order])
    for mine, others in zip(one, other, strict=True):
        assert mine.look_at == others.look_at
        np.testing.assert_allclose(mine.scores, others.scores, atol=1e-3)
        top = max(1, mine.look_at)
        assert mine.ids[:top].tolist() == others.ids[:top].tolist()


def test_arguments_are_not_changed() -> None:
    features, targets = two_classes()
    before = features.copy(), targets.copy()
    rank_suspects(features, targets, groups=np.arange(60) // 2)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_the_index_finds_what_all_distances_find() -> None:
    features = cloud(400, dimensions=16)
    features[300] = features[4] + 1e-3
    groups = np.arange(400) // 2
    rows = unit(features)
    exact, indexed = (nearest(rows, count=8, groups=groups, exact_rows=limit) for limit in (1000, 10))
    agree = np.mean([len(set(a) & set(b)) / 8 for a, b in zip(exact.rows, indexed.rows, strict=True)])
    assert agree > 0.97
    assert (groups[indexed.rows] != groups[:, None]).all()
    found = by_kind(rank_suspects(features, groups=groups, exact_rows=10))
    assert found["near-duplicate"].ids[0].tolist() == [4, 300]


def test_a_large_group_does_not_use_up_the_index() -> None:
    rows = unit(np.concatenate([cloud(60, width=0.01), cloud(40, width=0.3, seed=2)]))
    groups = np.concatenate([np.zeros(60, dtype=int), np.arange(1, 41)])
    found = nearest(rows, count=4, groups=groups, exact_rows=10)
    assert (found.rows[:60] >= 60).all(where=found.rows[:60] >= 0)


@pytest.mark.parametrize("name", ["targets", "ids", "groups", "thumbnails"])
def test_arguments_of_another_length_are_refused(name: str) -> None:
    value = np.zeros((3, 2)) if name in {"targets", "thumbnails"} else np.arange(3)
    with pytest.raises(DataError, match=f"{name} must have one entry per image: got 3 for 10"):
        rank_suspects(cloud(10), **{name: value})


def test_features_that_are_not_finite_are_refused() -> None:
    features = cloud(10)
    features[4, 2] = np.inf
    with pytest.raises(DataError, match=r"rows \[4\]"):
        rank_suspects(features)


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        rank_suspects(np.zeros((0, 4)))


def test_the_effort_by_hand() -> None:
    """Median 2, lower deviations 0, 1, 2 of median 1: outliers lie above 2 + 3.5 * 1.4826 = 7.19."""
    usual = np.array([0.0, 1, 2, 3, 100])
    assert outliers(np.array([7.1, 7.2, 100]), usual=usual, rows=1000) == 2
    assert outliers(np.full(50, 100.0), usual=usual, rows=100) == 10


def test_thumbnails_by_hand_know_no_brightness_or_contrast_or_corner() -> None:
    image = np.random.default_rng(0).integers(60, 180, (1, 1, 48, 40), dtype=np.uint8)
    changed = (image.astype(float) * 0.5 + 40).astype(np.uint8)
    cornered = image.copy()
    cornered[:, :, :4, :4] = 0
    rows = unit(thumbnails(np.concatenate([image, changed, cornered])))
    assert rows[0] @ rows[1] > 0.999
    assert rows[0] @ rows[2] > 0.999
    half = np.zeros((1, 3, 32, 32), dtype=np.uint8)
    half[..., 16:] = 200
    grid = thumbnails(half).reshape(16, 16)
    np.testing.assert_allclose(grid[7, 4:8], -100, rtol=1e-5)
    np.testing.assert_allclose(grid[7, 8:12], 100, rtol=1e-5)
    assert grid[0, 0] == 0
