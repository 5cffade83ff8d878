"""Measure what the classic mistakes cost on real images, and write docs/pitfalls.md.

python studies/pitfalls.py ../shared/data ../shared/weights/mobilenetv2_100_imagenet.safetensors

Every mistake is made on purpose, many times: a quarter of the patients is set aside as new patients; the rest is used
as the mistake has it, and as it should be. Three figures come out of each repeat: what one would claim, what one would
claim without the mistake, and what the first classifier does on the new patients. The classifier is logistic
regression on frozen features of a network that was trained on ImageNet, so that a repeat takes seconds.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import rich
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from raremix.core import files
from raremix.core.errors import RaremixError
from raremix.core.random import rng
from raremix.data.cache import build_cache
from raremix.data.guards import check
from raremix.data.manifest import Manifest
from raremix.data.sources import Table
from raremix.models.classifier import ClassifierSpec

HERE = Path(__file__).parent
NUMBERS = HERE / "results" / "pitfalls.json"
REPEATS = 20
NEW = 0.25  # share of the patients that are set aside
TEST = 0.25  # share of the rest that is tested on
SIZE = 96
RARE = ("df", "vasc", "akiec")
CANDIDATES = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """Features and labels of a data set."""

    manifest: Manifest
    features: np.ndarray
    labels: np.ndarray
    group: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        return self.manifest.card.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one repeat gave, as scores in [0, 1]."""

    claimed: float
    honest: float
    new: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake: how it is called, on what data, by what score, and how it is made."""

    key: str
    title: str
    data: str
    score: str
    run: Callable[["Session", int], Outcome]


class Session:
    """The data sets, with their features."""

    def __init__(self, data: Path, weights: Path, cache: Path) -> None:
        self.weights, self.cache = weights, cache
        self.chest = self._images(chest(data, cache=cache))
        self.skin = self._images(
            Table(
                path=data / "ham10000_128" / "labels.csv",
                image="file",
                images_root="images",
                label="dx",
                classes=["nv", "bkl", "mel", "bcc", "akiec", "vasc", "df"],
                group="lesion_id",
                name="HAM10000",
            ).load(cache=cache)
        )
        self.blends = self._blends()

    def _images(self, manifest: Manifest) -> Images:
        images = build_cache(manifest, size=SIZE, channels=3, root=self.cache)
        batches = (images.take(ids) for ids in np.array_split(manifest.ids, -(-len(manifest) // 64)))
        features = self._features(batches, total=-(-len(manifest) // 64), name=manifest.card.name)
        _, group = np.unique(manifest.frame["group"].to_numpy(), return_inverse=True)
        return Images(manifest=manifest, features=features, labels=manifest.targets().argmax(axis=1), group=group)

    def _features(self, batches: Iterator[np.ndarray], *, total: int, name: str) -> np.ndarray:
        spec = ClassifierSpec(
            name="mobilenetv2_100",
            weights=self.weights,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            options={"pad_type": "same"},
        )
        model = spec.build(num_classes=2, channels=3, size=SIZE, seed=0).eval()
        model.net.reset_classifier(0)
        with torch.inference_mode():
            parts = [
                model(torch.from_numpy(batch).float() / 255).numpy()
                for batch in track(batches, total=total, description=f"features of {name}")
            ]
        return np.concatenate(parts)

    def _blends(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blend pairs of images of one rare class: features, labels, and the rows of both parents."""
        stream = rng(0, "mix")
        images = build_cache(self.skin.manifest, size=SIZE, channels=3, root=self.cache)
        rows, labels = [], []
        for name in RARE:
            k = self.skin.names.index(name)
            own = np.flatnonzero(self.skin.labels == k)
            rows.append(np.stack([stream.choice(own, size=2, replace=False) for _ in range(600)]))
            labels += [k] * 600
        parents = np.concatenate(rows)
        share = stream.uniform(0.3, 0.7, size=(len(parents), 1, 1, 1))
        ids = self.skin.manifest.ids

        def made() -> Iterator[np.ndarray]:
            for part in np.array_split(np.arange(len(parents)), -(-len(parents) // 64)):
                own, other = (images.take(ids[parents[part, side]]) for side in (0, 1))
                yield (own * share[part] + other * (1 - share[part])).round().astype(np.uint8)

        features = self._features(made(), total=-(-len(parents) // 64), name="blended images")
        return features, np.array(labels), parents


def chest(data: Path, *, cache: Path) -> Manifest:
    """Load the chest X-rays, with their patients."""
    return Table(
        path=data / "kermany_cxr_224" / "labels.csv",
        image="file",
        images_root="images",
        label="subtype",
        classes=["normal", "bacteria", "virus"],
        group="patient_group",
        name="Kermany",
    ).load(cache=cache)


def patients_in_both(session: Session, repeat: int) -> Outcome:
    """Deal images, not patients, into training and test."""
    return _by_image(session.chest, repeat, fit)


def patients_remembered(session: Session, repeat: int) -> Outcome:
    """Do the same with a classifier that remembers every training image: the nearest neighbour."""
    return _by_image(session.chest, repeat, nearest)


def _by_image(data: Images, repeat: int, make: Callable[..., Callable[[np.ndarray], np.ndarray]]) -> Outcome:
    stream = rng(repeat, "split")
    new, rest = by_group(data.group, share=NEW, stream=stream)
    outcomes = []
    for test, train in (
        by_row(rest, share=TEST, stream=stream),
        within(rest, data.group, share=TEST, stream=stream),
    ):
        model = make(data.features[train], data.labels[train])
        outcomes.append((balanced(model, data, test), balanced(model, data, new)))
    return Outcome(claimed=outcomes[0][0], honest=outcomes[1][0], new=outcomes[0][1])


def resampled_before_split(session: Session, repeat: int) -> Outcome:
    """Repeat the rare images until classes are balanced, and split then."""
    data, stream = session.skin, rng(repeat, "split")
    new, rest = by_group(data.group, share=NEW, stream=stream)
    repeated = balance(rest, data.labels, stream=stream)
    test, train = by_row(repeated, share=TEST, stream=stream)
    mistaken = fit(data.features[train], data.labels[train])
    test_too, train_too = within(rest, data.group, share=TEST, stream=stream)
    train_too = balance(train_too, data.labels, stream=stream)
    honest = fit(data.features[train_too], data.labels[train_too])
    return Outcome(
        claimed=balanced(mistaken, data, test),
        honest=balanced(honest, data, test_too),
        new=balanced(mistaken, data, new),
    )


def threshold_on_test(session: Session, repeat: int) -> Outcome:
    """Choose the threshold by which F1 on the test images is largest."""
    data, stream = session.skin, rng(repeat, "split")
    is_rare = data.labels == data.names.index("df")
    new, rest = by_group(data.group, share=NEW, stream=stream)
    test, others = within(rest, data.group, share=TEST, stream=stream)
    validation, train = within(others, data.group, share=TEST, stream=stream)
    model = fit(data.features[train], is_rare[train])
    on = {name: model(data.features[rows])[:, 1] for name, rows in (("v", validation), ("t", test), ("n", new))}
    from_test, from_validation = (
        best_threshold(on[name], is_rare[rows]) for name, rows in (("t", test), ("v", validation))
    )
    return Outcome(
        claimed=f1(on["t"] >= from_test, is_rare[test]),
        honest=f1(on["t"] >= from_validation, is_rare[test]),
        new=f1(on["n"] >= from_test, is_rare[new]),
    )


def synthetic_in_validation(session: Session, repeat: int) -> Outcome:
    """Make images of the rare classes first, and cut validation images from real and synthetic ones alike."""
    data, stream = session.skin, rng(repeat, "split")
    features, labels, parents = session.blends
    new, rest = by_group(data.group, share=NEW, stream=stream)
    usable = np.flatnonzero(np.isin(parents, rest).all(axis=1))
    every = np.concatenate([rest, len(data.labels) + usable])
    x, y = np.concatenate([data.features, features]), np.concatenate([data.labels, labels])
    validation, train = by_row(every, share=TEST, stream=stream)
    mistaken = fit(x[train], y[train])
    real, others = within(rest, data.group, share=TEST, stream=stream)
    made = len(data.labels) + usable[np.isin(parents[usable], others).all(axis=1)]
    kept = np.concatenate([others, made])
    honest = fit(x[kept], y[kept])
    return Outcome(
        claimed=score(mistaken, x, y, validation),
        honest=score(honest, x, y, real),
        new=score(mistaken, x, y, new),
    )


def chosen_on_test(session: Session, repeat: int) -> Outcome:
    """Try some settings, and report the best one's score on the test images that it was chosen by."""
    data, stream = session.skin, rng(repeat, "split")
    small = np.sort(stream.permutation(len(data.labels))[:1500])  # a set as small as most are
    new = np.setdiff1d(np.arange(len(data.labels)), small)
    test, others = within(small, data.group, share=TEST, stream=stream)
    validation, train = within(others, data.group, share=TEST, stream=stream)
    rows = []
    for _ in range(CANDIDATES):
        columns = np.sort(stream.permutation(data.features.shape[1])[:64])
        model = fit(data.features[train][:, columns], data.labels[train])
        rows.append([score(model, data.features[:, columns], data.labels, part) for part in (validation, test, new)])
    table = np.array(rows)
    by_test, by_validation = table[:, 1].argmax(), table[:, 0].argmax()
    return Outcome(claimed=table[by_test, 1], honest=table[by_validation, 1], new=table[by_test, 2])


MISTAKES = (
    Mistake(
        key="patients",
        title="Images of one patient in training and test",
        data="Kermany, 3 classes",
        score="balanced accuracy",
        run=patients_in_both,
    ),
    Mistake(
        key="remembered",
        title="The same, with a classifier that remembers (nearest neighbour)",
        data="Kermany, 3 classes",
        score="balanced accuracy",
        run=patients_remembered,
    ),
    Mistake(
        key="resampling",
        title="Repeating rare images before the split",
        data="HAM10000, 7 classes",
        score="balanced accuracy",
        run=resampled_before_split,
    ),
    Mistake(
        key="synthetic",
        title="Synthetic images among the validation images",
        data="HAM10000, 7 classes; blends of two images of one rare class",
        score="balanced accuracy",
        run=synthetic_in_validation,
    ),
    Mistake(
        key="threshold",
        title="A threshold chosen on the test images",
        data="HAM10000, dermatofibroma against the rest",
        score="F1",
        run=threshold_on_test,
    ),
    Mistake(
        key="selection",
        title=f"The best of {CANDIDATES} settings, chosen on the test images",
        data="HAM10000, 1,500 images",
        score="balanced accuracy",
        run=chosen_on_test,
    ),
)


def by_group(group: np.ndarray, *, share: float, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut a share of the groups off: rows of these, and the others."""
    order = stream.permutation(group.max() + 1)
    chosen = np.isin(group, order[: round(share * len(order))])
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def within(
    rows: np.ndarray, group: np.ndarray, *, share: float, stream: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a share of the groups off some rows."""
    _, own = np.unique(group[rows], return_inverse=True)
    first, second = by_group(own, share=share, stream=stream)
    return rows[first], rows[second]


def by_row(rows: np.ndarray, *, share: float, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut a share of the rows off, whoever they belong to."""
    order = stream.permutation(rows)
    cut = round(share * len(rows))
    return order[:cut], order[cut:]


def balance(rows: np.ndarray, labels: np.ndarray, *, stream: np.random.Generator) -> np.ndarray:
    """Repeat rows of each class at random until all classes have as many as the largest."""
    counts = np.bincount(labels[rows])
    parts = [rows]
    for k in np.flatnonzero(counts):
        parts.append(stream.choice(rows[labels[rows] == k], size=counts.max() - counts[k]))
    return np.concatenate(parts)


def fit(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit logistic regression to standardised features, and return what gives probabilities."""
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=200, tol=1e-3).fit((features - mean) / std, labels)
    return lambda values: model.predict_proba((values - mean) / std)


def nearest(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives all probability to the class of the nearest training image, by cosine."""
    model = KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(features, labels)
    return lambda values: np.asarray(model.predict_proba(values))


def score(
    model: Callable[[np.ndarray], np.ndarray], features: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> float:
    """Return the balanced accuracy on some rows."""
    return float(balanced_accuracy_score(labels[rows], model(features[rows]).argmax(axis=1)))


def balanced(model: Callable[[np.ndarray], np.ndarray], data: Images, rows: np.ndarray) -> float:
    """Return the balanced accuracy on some rows of a data set."""
    return score(model, data.features, data.labels, rows)


def best_threshold(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the score from which calling images positive gives the largest F1."""
    candidates = np.unique(scores)
    return float(max(candidates, key=lambda bound: f1(scores >= bound, is_positive)))


def f1(is_called: np.ndarray, is_positive: np.ndarray) -> float:
    """Return F1."""
    return float(f1_score(is_positive, is_called, zero_division=0.0))


def refusals(session: Session) -> dict[str, str]:
    """Make three of the mistakes in a manifest, and return what loading says."""
    chest, skin = session.chest.manifest, session.skin.manifest
    stream = rng(0, "split")
    random = np.where(stream.random(len(chest)) < TEST, "test", "train").tolist()
    twice = pl.concat([skin.frame, skin.frame.tail(3).with_columns(pl.col("id") + 10**6)])
    twice = twice.with_columns(
        split=pl.Series(["train"] * len(skin) + ["test"] * 3), path=pl.Series([f"{i}.jpg" for i in range(len(twice))])
    ).with_columns(group=pl.col("path"))
    made = skin.frame.with_columns(
        split=pl.Series(["validation"] * 3 + ["train"] * (len(skin) - 3)),
        origin=pl.Series(["synthetic"] * 3 + ["real"] * (len(skin) - 3)),
    )
    frames = {
        "patients": chest.with_split(random),
        "resampling": Manifest(frame=twice, card=skin.card, root=skin.root),
        "synthetic": Manifest(frame=made, card=skin.card, root=skin.root),
    }
    return {key: _refusal(manifest) for key, manifest in frames.items()}


def _refusal(manifest: Manifest) -> str:
    try:
        check(manifest, check_files=False)
    except RaremixError as error:
        return str(error)
    raise SystemExit("a mistake was not refused")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with kermany_cxr_224 and ham10000_128")
    parser.add_argument("weights", type=Path, help="MobileNetV2's ImageNet weights, .safetensors")
    parser.add_argument("--cache", type=Path, default=Path("runs/pitfalls_cache"), help="folder for decoded images")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="random splits per mistake")
    options = parser.parse_args()
    session = Session(options.data, options.weights, options.cache)
    measured = {}
    for mistake in MISTAKES:
        outcomes = [mistake.run(session, i) for i in track(range(options.repeats), description=mistake.key)]
        values = {name: [getattr(o, name) for o in outcomes] for name in ("claimed", "honest", "new")}
        measured[mistake.key] = {"title": mistake.title, "data": mistake.data, "score": mistake.score, **values}
    files.write_json(
        NUMBERS, {"repeats": options.repeats, "size": SIZE, "mistakes": measured, "refusals": refusals(session)}
    )
    for key, values in measured.items():
        rich.print(key, *(f"{name} {100 * np.mean(values[name]):.1f}" for name in ("claimed", "honest", "new")))


if __name__ == "__main__":
    main()
