"""The table of an arm: its rows, its claims, and whether its intervals hold the truth."""

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtri

from raremix.core.errors import DataError, UnknownNameError
from raremix.evaluate import METRICS, SCHEMA, auroc_interval, delong, measure, score, wilson

CLASSES = ("nevus", "melanoma", "rare")


@pytest.fixture(scope="module")
def study() -> dict:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [120, 60, 15])
    targets = np.eye(3)[truth]
    scores = rng.dirichlet(np.ones(3), size=(3, 195)) * 0.5 + 0.5 * targets * (rng.random((3, 195, 1)) < 0.7)
    scores += (1 - scores.sum(axis=2, keepdims=True)) / 3
    return {
        "targets": targets,
        "scores": scores,
        "task": "multiclass",
        "classes": CLASSES,
        "groups": np.array([f"p{i}" for i in range(195)]),
        "resamples": 300,
    }


@pytest.fixture(scope="module")
def table(study) -> pl.DataFrame:
    sex = np.array(["F", "M", None], dtype=object)[np.arange(195) % 3]
    return measure(**study, train_counts=[1000, 80, 10], attributes={"sex": sex})


def pick(frame: pl.DataFrame, **where: str) -> dict:
    rows = frame.filter(*[pl.col(column) == value for column, value in where.items()]).to_dicts()
    assert len(rows) == 1
    return rows[0]


class TestRows:
    def test_scopes_and_labels(self, table) -> None:
        assert dict(table.schema) == SCHEMA
        found = table.filter(pl.col("metric") == "f1").select("scope", "label").rows()
        assert found == [
            ("overall", ""),
            *[("class", name) for name in CLASSES],
            ("band", "head"),
            ("band", "medium"),
            ("band", "tail"),
            ("subgroup", "sex=(missing)"),
            ("subgroup", "sex=F"),
            ("subgroup", "sex=M"),
        ]
        assert set(table["metric"]) == set(METRICS)

    def test_counts(self, table) -> None:
        rare = pick(table, metric="auroc", scope="class", label="rare")
        assert (rare["n"], rare["groups"], rare["positives"]) == (195, 195, 15)
        everything = pick(table, metric="auroc", scope="overall")
        assert (everything["n"], everything["groups"], everything["positives"]) == (195, 195, 15)
        women = pick(table, metric="auroc", label="sex=F")
        assert (women["n"], women["positives"]) == (65, 5)

    @pytest.mark.parametrize("name", METRICS)
    def test_values_are_means_over_seeds(self, study, table, name: str) -> None:
        options = {"metric": name, "task": "multiclass"}
        whole = pick(table, metric=name, scope="overall")
        assert whole["value"] == pytest.approx(score(study["targets"], study["scores"], **options))
        band = pick(table, metric=name, scope="band", label="tail")
        rare = pick(table, metric=name, scope="class", label="rare")
        assert band["value"] == rare["value"]
        assert rare["value"] == pytest.approx(score(study["targets"], study["scores"], labels=[2], **options))
        women = np.arange(195) % 3 == 0
        found = pick(table, metric=name, label="sex=F")
        assert found["value"] == pytest.approx(score(study["targets"][women], study["scores"][:, women], **options))

    def test_few_positives_have_counts_only(self, table) -> None:
        women = table.filter(pl.col("label") == "sex=F", pl.col("metric") == "balanced_accuracy")
        assert "fewer than 10 patients" in women["note"][0]

    def test_intervals_hold_their_values(self, table) -> None:
        known = table.drop_nulls(["low"])
        assert (known["low"] <= known["value"]).all()
        assert (known["value"] <= known["high"]).all()
        assert (known["method"] != "").all()

    def test_multilabel_with_holes(self) -> None:
        rng = np.random.default_rng(1)
        targets = (rng.random((200, 2)) < [0.4, 0.2]).astype(float)
        targets[rng.random((200, 2)) < 0.3] = np.nan
        scores = np.clip(rng.random((200, 2)) * 0.7 + 0.3 * np.nan_to_num(targets), 0, 1)
        found = measure(
            targets,
            scores,
            task="multilabel",
            classes=["edema", "mass"],
            groups=np.arange(200) // 2,
            thresholds=np.array([0.5, 0.4]),
            resamples=200,
        )
        mass = pick(found, metric="sensitivity", scope="class", label="mass")
        assert mass["n"] == int((~np.isnan(targets[:, 1])).sum())
        assert mass["positives"] == len(np.unique(np.flatnonzero(targets[:, 1] == 1) // 2))
        assert mass["value"] == pytest.approx((scores[targets[:, 1] == 1, 1] >= 0.4).mean())

    def test_bad_input(self, study) -> None:
        with pytest.raises(DataError, match="3 class names"):
            measure(**{**study, "classes": ["a", "b"]})
        with pytest.raises(DataError, match="training counts"):
            measure(**study, train_counts=[1, 2])
        with pytest.raises(DataError, match="'sex' for each"):
            measure(**study, attributes={"sex": np.array(["F"])})
        with pytest.raises(UnknownNameError, match="did you mean"):
            measure(**study, metrics=["balanced_acuracy"])


class TestClaims:
    def one(self, study, name: str, scores, **options) -> dict:
        found = measure(**{**study, "scores": scores, "metrics": [name], **options})
        return pick(found, scope="class", label="rare")

    def test_weights_of_independent_images_get_wilson(self, study) -> None:
        found = self.one(study, "sensitivity", study["scores"][0])
        hits = round(found["value"] * 15)
        expected = wilson(hits, 15)
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
        assert found["method"] == "Wilson"

    def test_weights_get_the_closed_area_interval(self, study) -> None:
        found = self.one(study, "auroc", study["scores"][0])
        closed = delong(study["targets"][:, 2], study["scores"][0, :, 2][None])
        expected = auroc_interval(float(closed.areas[0]), float(closed.covariance[0, 0]), positives=15, negatives=180)
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))

    @pytest.mark.parametrize("name", ["sensitivity", "auroc", "average_precision", "balanced_accuracy", "f1", "brier"])
    def test_recipes_are_less_certain_than_weights(self, study, name: str) -> None:
        recipe = self.one(study, name, study["scores"])
        weights = self.one(study, name, study["scores"], claim="weights")
        assert recipe["value"] == weights["value"]
        assert recipe["high"] - recipe["low"] >= weights["high"] - weights["low"]

    def test_two_seeds_are_no_recipe(self, study) -> None:
        found = self.one(study, "auroc", study["scores"][:2])
        assert "no claim about the recipe" in found["note"]

    def test_images_of_a_patient_count_once(self, study) -> None:
        copies = np.repeat(np.arange(195), 4)
        many = {
            **study,
            "targets": study["targets"][copies],
            "groups": study["groups"][copies],
            "metrics": ["sensitivity", "auroc", "average_precision"],
        }
        found = measure(**{**many, "scores": study["scores"][:1, copies], "resamples": 1000})
        once = measure(**{**study, "scores": study["scores"][:1], "metrics": many["metrics"], "resamples": 1000})
        for name in many["metrics"]:
            wide, reference = (pick(frame, metric=name, scope="class", label="melanoma") for frame in (found, once))
            assert wide["value"] == pytest.approx(reference["value"])
            ratio = (wide["high"] - wide["low"]) / (reference["high"] - reference["low"])
            assert 0.93 < ratio < 1.1

    def test_more_resamples_change_little(self, study) -> None:
        few, many = (measure(**{**study, "resamples": B, "metrics": ["f1"]}).row(0, named=True) for B in (1000, 4000))
        assert few["low"] == pytest.approx(many["low"], abs=0.015)
        assert few["high"] == pytest.approx(many["high"], abs=0.015)


@pytest.mark.slow
class TestCoverage:
    """How often the interval of a recipe's figure holds the figure of infinitely many patients and seeds."""

    @pytest.mark.parametrize("seed_sd", [0.0, 0.5])
    @pytest.mark.parametrize("positives", [12, 40])
    def test_recipe(self, simulate, positives: int, seed_sd: float) -> None:
        draws = 150
        truth = self.truth(seed_sd)
        inside = dict.fromkeys(truth, 0)
        for number in range(draws):
            study = simulate(number, patients=200, positives=positives, seeds=3, seed_sd=seed_sd)
            found = measure(
                study.targets,
                study.a,
                task="binary",
                classes=["well", "ill"],
                groups=study.groups,
                metrics=list(truth),
                resamples=400,
                seed=number,
            )
            for name, value in truth.items():
                row = pick(found, metric=name, scope="overall")
                inside[name] += row["low"] <= value <= row["high"]
        for name, count in inside.items():
            assert count / draws >= 0.90, (name, count / draws)

    @staticmethod
    def truth(seed_sd: float) -> dict[str, float]:
        """Figures of the simulator's recipe: patients, images, arm and noise are one normal score."""
        from scipy.special import ndtr

        spread = np.sqrt(0.7**2 + 0.5**2 + 0.5**2 + 0.5**2)
        strengths = 2.0 + seed_sd * ndtri((np.arange(2000) + 0.5) / 2000)
        area = float(ndtr(strengths / (spread * np.sqrt(2))).mean())
        right = float(ndtr(strengths / 2 / spread).mean())
        return {"auroc": area, "sensitivity": right, "specificity": right, "balanced_accuracy": right}
