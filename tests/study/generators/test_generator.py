"""From a data set to a generator, and from a generator to maps, images and a study."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from raremix.config import override
from raremix.core import files
from raremix.core.errors import ConfigError, GuardError, HeldOutError, ResumeError, StoppedError, UnknownNameError
from raremix.core.fitted import write_fitted
from raremix.data.guards import findings
from raremix.data.manifest import Manifest
from raremix.data.sources.manifest import Written
from raremix.explain import DifferenceMap
from raremix.generate import NoiseDrawer, generator_hash, read_card, sampling
from raremix.study.defaults import data_table
from raremix.study.fitted import rows_of
from raremix.study.generators.difference_maps import MapSettings, compute_maps
from raremix.study.generators.draw import sample_class
from raremix.study.generators.fit import fit_generator
from raremix.study.generators.guard import refuse_leaking, refuse_leaking_rows
from raremix.study.generators.spec import read_generator
from raremix.study.generators.synthesize import check_synthesis, plan_synthesis, synthesize
from raremix.study.generators.use import open_translator
from raremix.study.mixers import make_mixer
from raremix.study.prepare import Prepared, prepare
from raremix.study.run import plan_study
from raremix.study.spec import parse_study
from raremix.train.feed import to_float

pytestmark = pytest.mark.usefixtures("no_fsync_in_module")

DATA = ["data.images=60", "data.classes=2", "data.imbalance_ratio=3", "data.size=32", "data.channels=1"]
SMALL = {
    "dcgan": ["generator.width=2", "generator.latent=4"],
    "stargan": ["generator.width=2", "generator.widest=4", "generator.hidden=8"],
}
TRAIN = ["train.batch_size=2", 'train.precision="32"', "train.accelerator=cpu", "train.workers=0"]


def spec(method: str, *more: str, seed: int = 0) -> Any:
    budget = [*TRAIN, "train.steps=3", "train.validations=3", "train.checkpoints=3"]
    return read_generator("phantom", method=method, settings=[*DATA, *SMALL[method], *budget, *more], seed=seed)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, no_fsync_in_module: None) -> Path:
    """A folder with a cache and two fitted generators: dcgan, stargan."""
    folder = tmp_path_factory.mktemp("generator")
    for method in SMALL:
        fit_generator(spec(method), folder=folder / method, cache=folder / "cache")
    return folder


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(spec("dcgan").data, cache=place / "cache")


# Fitting


def test_a_folder_with_grids_and_a_strip(place: Path, prepared: Prepared) -> None:
    for method in SMALL:
        folder = place / method
        assert sorted(p.name for p in (folder / "samples").iterdir()) == [f"step-0000000{i}.png" for i in (1, 2, 3)]
        assert not (folder / "checkpoints").exists()
        with (
            Image.open(folder / "evolution.png") as strip,
            Image.open(folder / "samples" / "step-00000003.png") as grid,
        ):
            assert strip.width > 3 * 72
            assert grid.height > 2 * 72
        card = read_card(folder)
        train = prepared.manifest.rows("train")
        assert sum(card.images) == len(train)
        assert card.steps == 3
        refuse_leaking(folder, prepared.manifest, what="it")
    measured = read_card(place / "dcgan").measured
    kinds = ("diversity", "apart", "coverage")
    assert set(measured) == {f"{kind}_{name}" for kind in kinds for name in prepared.manifest.card.classes}
    assert set(read_card(place / "stargan").measured) == {"reconstruction", "change", "styles"}
    lines = [json.loads(line) for line in (place / "dcgan" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if any("validation/coverage_" in key for key in line)] == [1, 2, 3]


def test_killed_and_resumed_it_is_the_same_generator(place: Path, tmp_path: Path) -> None:
    asked = [False, True, False]
    with pytest.raises(StoppedError):
        fit_generator(spec("dcgan"), folder=tmp_path / "cut", cache=place / "cache", should_stop=lambda: asked.pop(0))
    fit_generator(spec("dcgan"), folder=tmp_path / "cut", cache=place / "cache")
    assert generator_hash(tmp_path / "cut") == generator_hash(place / "dcgan")
    grids = [(f / "samples" / "step-00000003.png").read_bytes() for f in (tmp_path / "cut", place / "dcgan")]
    assert grids[0] == grids[1]
    assert (tmp_path / "cut" / "evolution.png").read_bytes() == (place / "dcgan" / "evolution.png").read_bytes()


def test_again_is_nothing_to_do_and_another_one_is_refused(place: Path) -> None:
    before = generator_hash(place / "dcgan")
    fit_generator(spec("dcgan"), folder=place / "dcgan", cache=place / "cache")
    assert generator_hash(place / "dcgan") == before
    with pytest.raises(ResumeError, match="another --output"):
        fit_generator(spec("dcgan", seed=1), folder=place / "dcgan", cache=place / "cache")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["generator.wide=3"], "did you mean 'width'"),
        (["train.learning_rate=1"], "a generator has its own"),
        (["train.devices=3"], "must be divisible by devices = 3"),
        (["train.steps=0"], "at least 1"),
        (["generator.game='chess'"], "generator.game = 'chess'"),
    ],
)
def test_settings_that_do_not_fit(settings: list[str], words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        spec("dcgan", *settings)
    with pytest.raises(UnknownNameError, match="did you mean 'stargan'"):
        read_generator("phantom", method="stargam", settings=[])


def test_data_that_generators_do_not_draw(place: Path, tmp_path: Path) -> None:
    for settings, words in (
        (["data.multilabel=true", "data.modality=chest_xray"], "several findings"),
        (["data.bits=16"], "8-bit"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit_generator(spec("dcgan", *settings), folder=tmp_path / "x", cache=place / "cache")


def test_few_images_are_said(place: Path, tmp_path: Path) -> None:
    said: list[str] = []
    fit_generator(spec("dcgan", "train.steps=1"), folder=tmp_path / "g", cache=place / "cache", say=said.append)
    assert any("may learn them by heart" in text for text in said)


# Drawing


def test_samples_come_again(place: Path, tmp_path: Path, prepared: Prepared) -> None:
    label = prepared.manifest.card.classes[1]
    few = sample_class(place / "dcgan", label=label, count=3, seed=5, output=tmp_path / "few")
    many = sample_class(place / "dcgan", label=label, count=18, seed=5, output=tmp_path / "many")
    assert [p.name for p in few] == [f"{label}-5-00000{i}.png" for i in range(3)]
    assert [p.read_bytes() for p in few] == [p.read_bytes() for p in many[:3]]
    with pytest.raises(UnknownNameError, match="class 'x'"):
        sample_class(place / "dcgan", label="x", count=1, seed=0, output=tmp_path)
    with pytest.raises(ConfigError, match="raremix generator translate"):
        sample_class(place / "stargan", label=label, count=1, seed=0, output=tmp_path)


def test_samples_that_are_there_are_kept(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label, drawn = read_card(place / "dcgan").classes[1], []
    plain = NoiseDrawer.generate

    def counted(self: Any, targets: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        drawn.append(len(latents))
        if len(drawn) == stop_at:
            raise StoppedError("killed")
        return plain(self, targets, latents)

    monkeypatch.setattr(NoiseDrawer, "generate", counted)
    asked: dict[str, Any] = {"label": label, "count": 40, "seed": 5, "output": tmp_path / "drawn"}
    stop_at = 3
    with pytest.raises(StoppedError):
        sample_class(place / "dcgan", **asked)
    stop_at = 0
    drawn.clear()
    paths = sample_class(place / "dcgan", **asked)
    assert drawn == [16], "the last block alone"
    whole = sample_class(place / "dcgan", **{**asked, "output": tmp_path / "whole"})
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in whole]
    sheets = [tmp_path / name / f"{label}-5-sheet.png" for name in ("drawn", "whole")]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    drawn.clear()
    sample_class(place / "dcgan", **asked)
    assert drawn == []
    paths[20].write_bytes(b"damaged")
    sample_class(place / "dcgan", **asked)
    assert drawn == [16]
    assert paths[20].read_bytes() == whole[20].read_bytes()
    path = tmp_path / "drawn" / f"{label}-5.jsonl"
    records = files.read_records(path)
    files.write_records(path, [{**one, "by": {**one["by"], "generator": "another"}} for one in records])
    drawn.clear()
    sample_class(place / "dcgan", **asked)
    assert drawn == [16, 16, 16], "what another generator drew is drawn anew"


# Difference maps


def test_maps_are_those_of_the_map_and_kept(place: Path, prepared: Prepared) -> None:
    found = compute_maps(place / "stargan", prepared, split="validation", cache=place / "cache")
    ids = prepared.manifest.rows("validation")
    assert found.ids.tolist() == ids.tolist()
    own = prepared.manifest.targets(ids).argmax(axis=1)
    taken = found.take(np.arange(len(ids)))
    assert not taken[np.arange(len(ids)), own].any(), "nothing is asked towards an image's own class"
    translator, _ = open_translator(place / "stargan")
    row = int(np.flatnonzero(own == 0)[0])
    expected = DifferenceMap(translator=translator, to_reconstruction=True).towards_every(
        to_float(prepared.cache.take(ids[:32])), torch.eye(2)[own[:32]], numbers=ids[:32], with_own=False
    )
    assert np.abs(taken[row, 1] / 255 - expected[row, 1].numpy()).max() < 0.51 / 255
    first = found.areas.row(0, named=True)
    place_of = {int(i): n for n, i in enumerate(ids)}
    k = prepared.manifest.card.classes.index(first["to"])
    assert first["area"] == pytest.approx(taken[place_of[first["id"]], k].mean() / 255, abs=0.003)
    assert sum(row["maps"] for row in found.summary()) == len(ids)

    time = (found.folder / "maps.raw").stat().st_mtime_ns
    again = compute_maps(place / "stargan", prepared, split="validation", cache=place / "cache")
    assert (again.folder / "maps.raw").stat().st_mtime_ns == time
    other = compute_maps(
        place / "stargan", prepared, split="validation", cache=place / "cache", settings=MapSettings(robust=True)
    )
    assert other.folder != found.folder
    with pytest.raises(ConfigError, match="draws from noise"):
        compute_maps(place / "dcgan", prepared, split="validation", cache=place / "cache")


def test_where_memory_runs_out_maps_are_drawn_in_parts(
    place: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compute_maps(place / "stargan", prepared, split="validation", cache=place / "cache")
    drawn, seen = DifferenceMap.towards_every, list[int]()

    def tight(self: DifferenceMap, images: torch.Tensor, own: torch.Tensor, **options: Any) -> torch.Tensor:
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.extend(options["numbers"].tolist())
        return drawn(self, images, own, **options)

    monkeypatch.setattr(DifferenceMap, "towards_every", tight)
    parts = compute_maps(place / "stargan", prepared, split="validation", cache=tmp_path)
    assert seen == whole.ids.tolist(), "styles go by the images' ids"
    rows = np.arange(len(whole.ids))
    assert np.abs(parts.take(rows).astype(int) - whole.take(rows)).max() <= 1


# Studies


def study(place: Path, importance: Any, **data: Any) -> Any:
    table: dict[str, Any] = {
        "study": {"name": "vm", "seeds": [0]},
        "data": {"source": "phantom", "images": 60, "classes": 2, "imbalance_ratio": 3, "size": 32, "channels": 1},
        "train": {"steps": 1, "batch_size": 4},
        "arm": [{"name": "varimix", "mix": {"name": "varimix", "importance": importance}}],
    }
    return parse_study({**table, "data": {**table["data"], **data}}, base=place)


def test_an_arm_mixes_by_a_fitted_translator(place: Path) -> None:
    importance = {"name": "difference", "translator": "stargan"}
    spec = study(place, importance)
    assert spec.arms[0].mix["importance"]["translator"] == str(place / "stargan"), "from the study's folder"
    plan = plan_study(spec, runs=place / "runs", cache=place / "cache")
    latent = {**importance, "translator": {"name": "stargan", "style": "latent"}, "to_reconstruction": True}
    other = plan_study(study(place, latent), runs=place / "runs", cache=place / "cache")
    assert plan.jobs[0].key != other.jobs[0].key
    mixer: Any = make_mixer(spec.arms[0].mix, where="mix")
    assert mixer.importance.translator is open_translator(place / "stargan")[0], "loaded once"
    mixed, targets = mixer(torch.rand(4, 1, 32, 32), torch.eye(2)[[0, 1, 1, 0]], rng=np.random.default_rng(0))
    assert mixed.shape == (8, 1, 32, 32)
    assert targets.sum(dim=0).tolist() == pytest.approx([4, 4])


def test_an_arm_is_refused_what_leaks_or_does_not_fit(place: Path) -> None:
    importance = {"name": "difference", "translator": "stargan"}
    with pytest.raises(ConfigError, match="draws from noise"):
        study(place, {**importance, "translator": "dcgan"})
    with pytest.raises(ConfigError, match="style"):
        study(place, {**importance, "translator": {"name": "stargan", "style": "baroque"}})
    for data, words in (({"size": 40}, "the images are 1 x 40 x 40"), ({"classes": 3}, "the data have")):
        with pytest.raises(ConfigError, match=words):
            plan_study(study(place, importance, **data), runs=place / "runs", cache=place / "cache")


def test_a_generator_that_saw_held_out_rows_is_refused(place: Path, prepared: Prepared) -> None:
    turned = {"train": "test", "test": "train"}
    split = [turned.get(s, s) for s in prepared.manifest.frame["split"]]
    with pytest.raises(HeldOutError, match=r"stargan.* was fitted on .* test rows"):
        refuse_leaking(place / "stargan", prepared.manifest.with_split(split), what="stargan")


def test_a_classifier_that_saw_held_out_rows_is_no_judge(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        write_fitted(tmp_path / split, {"train": rows_of(prepared.manifest, prepared.manifest.rows(split))})
        asked = spec("stargan", "generator.classifier=1")
        judged = replace(asked, table=replace(asked.table, classifier=tmp_path / split))
        with pytest.raises(HeldOutError, match=rf"stargan begins with \(before/classifier\) .* {split} rows"):
            fit_generator(judged, folder=tmp_path / "g", cache=place / "cache", prepared=prepared)
    with pytest.raises(ConfigError, match="--classifier FOLDER"):
        fit_generator(asked, folder=tmp_path / "g", cache=place / "cache", prepared=prepared)
    assert not (tmp_path / "g").exists(), "before anything is made"


# Synthesis


def test_until_balanced_and_once_only(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    output = tmp_path / "made"
    path = synthesize(prepared, generator=place / "dcgan", output=output)
    made = Manifest.read(path)
    counts = made.class_counts("train")
    real = prepared.manifest.class_counts("train")
    assert counts.tolist() == [real.max()] * 2
    synthetic = made.frame.filter(pl.col("origin") == "synthetic")
    assert set(synthetic["split"]) == {"train"}
    recipe = json.loads(synthetic["recipe"][0])
    assert recipe["generator"] == generator_hash(place / "dcgan")
    assert (recipe["class"], recipe["number"], recipe["seed"]) == (prepared.manifest.card.classes[1], 0, 0)
    # Real rows are as they were, but for where their paths start and what groups are called.
    columns = ["id", "split", "sha256", *(f"target:{n}" for n in prepared.manifest.card.classes)]
    left = made.frame.filter(pl.col("origin") == "real")
    whole = pl.DataFrame({"before": prepared.manifest.frame["group"], "after": left["group"]})
    assert whole.unique().height == whole["before"].n_unique() == whole["after"].n_unique() > 5
    assert left.select(columns).equals(prepared.manifest.frame.select(columns))
    assert [p.resolve() for p in made.paths(left["id"].to_numpy())] == [p.resolve() for p in prepared.manifest.paths()]
    assert all(files.hash_file(p) == h for p, h in zip(made.paths(), made.frame["sha256"], strict=True))
    assert not findings(made)
    before = {p: p.stat().st_mtime_ns for p in (output / "images").rglob("*.png")}
    assert synthesize(prepared, generator=place / "dcgan", output=output).read_bytes() == path.read_bytes()
    assert {p: p.stat().st_mtime_ns for p in (output / "images").rglob("*.png")} == before


def test_a_cut_synthesis_goes_on_and_grows(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    real = dict(zip(prepared.manifest.card.classes, prepared.manifest.class_counts("train").tolist(), strict=True))
    rare = min(real, key=lambda name: real[name])
    to = f"{rare}={real[rare] + 20}"
    whole = synthesize(prepared, generator=place / "dcgan", output=tmp_path / "whole", to=to)

    def stop(what: str, done: int, total: int) -> None:
        raise StoppedError("enough")

    with pytest.raises(StoppedError):
        synthesize(prepared, generator=place / "dcgan", output=tmp_path / "cut", to=to, progress=stop)
    images = sorted((tmp_path / "cut" / "images").rglob("*.png"))
    assert len(images) == 16, "a block"
    images[3].write_bytes(b"damaged")
    assert plan_synthesis(prepared, to=to, output=tmp_path / "cut").done[rare] == 15
    cut = synthesize(prepared, generator=place / "dcgan", output=tmp_path / "cut", to=to)
    hashes = [Manifest.read(p).frame["sha256"].to_list() for p in (whole, cut)]
    assert hashes[0] == hashes[1]
    ids = Manifest.read(cut).ids.tolist()
    more = synthesize(prepared, generator=place / "dcgan", output=tmp_path / "cut", to=f"{rare}={real[rare] + 22}")
    assert Manifest.read(more).ids.tolist()[: len(ids)] == ids


def test_translations_have_parents(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    rare = prepared.manifest.card.classes[1]
    made = Manifest.read(synthesize(prepared, generator=place / "stargan", output=tmp_path / "made", to=f"{rare}=40"))
    synthetic = made.frame.filter(pl.col("origin") == "synthetic")
    parents = np.array(synthetic["parents"].to_list()).ravel()
    assert len(parents) == synthetic.height > 0
    assert set(parents) <= set(made.rows("train").tolist())
    assert (made.targets(parents)[:, 0] == 1).all(), "images of another class"
    # Held out, a parent is refused.
    split = ["test" if i == parents[0] else s for i, s in zip(made.ids, made.frame["split"], strict=True)]
    kinds = {finding.kind for finding in findings(made.with_split(split))}
    assert "held_out_parent" in kinds


def test_translations_do_not_depend_on_the_block(
    place: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = prepared.manifest.card.classes[1]
    asked: dict[str, Any] = {"generator": place / "stargan", "to": f"{rare}=40"}
    frames = []
    for block in (16, 5):
        monkeypatch.setattr(sampling, "BLOCK", block)
        made = Manifest.read(synthesize(prepared, output=tmp_path / str(block), **asked))
        frames.append(made.frame.filter(pl.col("origin") == "synthetic"))
    assert frames[0].height > 16, "more than a block"
    assert frames[0]["parents"].to_list() == frames[1]["parents"].to_list()
    images = [
        np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / block / "images").rglob("*.png"))])
        for block in ("16", "5")
    ]
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1, "rounding alone"


def test_translations_begun_by_an_earlier_version_are_not_gone_on_with(
    place: Path, prepared: Prepared, tmp_path: Path
) -> None:
    rare = prepared.manifest.card.classes[1]
    asked: dict[str, Any] = {"generator": place / "stargan", "output": tmp_path / "made", "to": f"{rare}=40"}
    synthesize(prepared, **asked)
    path = tmp_path / "made" / "synthesis.json"
    facts = json.loads(path.read_text())
    assert facts.pop("translating") == 2
    path.write_text(json.dumps(facts))
    with pytest.raises(ResumeError, match="an earlier raremix, which drew other images of the same numbers: delete it"):
        check_synthesis(prepared, **asked)
    path.write_text(json.dumps({**facts, "seed": 9}))
    with pytest.raises(ResumeError, match="another generator, seed or data set"):
        check_synthesis(prepared, **asked)


def test_real_files_are_not_touched(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    root = prepared.manifest.root
    for output in (root, root / "synthetic", root.parent):
        with pytest.raises(GuardError, match="never mix with real files"):
            synthesize(prepared, generator=place / "dcgan", output=output)
    (tmp_path / "images").mkdir()
    with pytest.raises(GuardError, match="no synthesis wrote"):
        synthesize(prepared, generator=place / "dcgan", output=tmp_path)
    synthesize(prepared, generator=place / "dcgan", output=tmp_path / "made")
    with pytest.raises(ResumeError, match="another generator, seed or data set"):
        synthesize(prepared, generator=place / "dcgan", output=tmp_path / "made", seed=1)
    for to, error in (("many", ConfigError), ("x=3", UnknownNameError)):
        with pytest.raises(error):
            plan_synthesis(prepared, to=to, output=tmp_path / "made")


def test_a_dry_run_refuses_what_the_run_would(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    made = tmp_path / "made"
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"begin": "own"}, ConfigError),
        ({"drawing": {"strenght": 0.5}}, UnknownNameError),
        ({"to": "x=3"}, UnknownNameError),
        ({"output": prepared.manifest.root / "synthetic"}, GuardError),
    ]
    for asked, error in wrong:
        with pytest.raises(error):
            check_synthesis(prepared, **({"generator": place / "dcgan", "output": made} | asked))
    ready = check_synthesis(prepared, generator=place / "dcgan", output=made)
    assert ready.begin == "noise" and sum(ready.plan.wanted.values()) > 0
    assert not made.exists() and not (prepared.manifest.root / "synthetic").exists(), "nothing is written"
    synthesize(prepared, generator=place / "dcgan", output=made)
    with pytest.raises(ResumeError, match="another generator, seed or data set"):
        check_synthesis(prepared, generator=place / "dcgan", output=made, seed=1)


def test_a_study_reads_what_was_made_and_refuses_another_split(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    path = synthesize(prepared, generator=place / "dcgan", output=tmp_path / "made")
    assert data_table(str(tmp_path / "made")) == {"source": "manifest", "path": str((tmp_path / "made").resolve())}
    table = {
        "study": {"name": "gm", "seeds": [0]},
        "data": {"source": "manifest", "path": "made", "size": 32, "channels": 1},
        "train": {"steps": 1, "batch_size": 4},
        "arm": [{"name": "genmix", "mix": {"name": "genmix"}}],
    }
    plan = plan_study(parse_study(table, base=tmp_path), runs=tmp_path / "runs", cache=place / "cache")
    found = plan.prepared[None].manifest
    assert (found.frame["origin"] == "synthetic").sum() > 0
    refuse_leaking_rows(found)
    # Folds of one's own would hold out rows that the generator has seen.
    folded = parse_study(override(table, ["study.folds=3"]), base=tmp_path)
    with pytest.raises(GuardError):
        plan_study(folded, runs=tmp_path / "runs", cache=place / "cache")
    made = Written(path=path).load(cache=place / "cache")
    real = made.select(made.ids[(made.frame["origin"] == "real").to_numpy()])
    turned = made.with_split(["test" if s == "train" else "train" for s in made.frame["split"]])
    assert len(real) == len(prepared.manifest)
    with pytest.raises(HeldOutError, match="generator of the synthetic rows"):
        refuse_leaking_rows(turned)


# The command line


def test_verbs_say_what_they_did_and_what_comes_next(
    place: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], prepared: Prepared
) -> None:
    own = ["--set", "data.images=60", "--set", "data.classes=2", "--set", "data.imbalance_ratio=3"]
    own += ["--cache", str(place / "cache")]
    label = prepared.manifest.card.classes[1]
    code, said, _ = run("generator", "inspect", place / "dcgan", "--json")
    assert code == 0
    assert json.loads(said)["hash"] == generator_hash(place / "dcgan")
    code, said, _ = run("generator", "sample", place / "dcgan", "--class", label, "-n", "2", "-o", tmp_path, "--json")
    assert code == 0
    assert len(json.loads(said)["images"]) == 2
    picture = tmp_path / "t.png"
    code, said, _ = run("generator", "translate", place / "stargan", "phantom", *own, "-n", "1", "-o", picture)
    assert (code, picture.is_file()) == (0, True)
    assert "raremix maps adm" in said
    code, said, _ = run(
        "maps", "adm", "phantom", place / "stargan", *own, "--split", "test", "-o", tmp_path / "maps", "--json"
    )
    assert code == 0
    assert Path(json.loads(said)["picture"]).is_file()
    code, said, _ = run("synthesize", "phantom", place / "dcgan", *own, "-o", tmp_path / "made", "--dry-run")
    assert code == 0
    assert "would write" in said
    assert not (tmp_path / "made").exists()
    names = prepared.manifest.card.classes
    twice = [word for name in names for word in ("--to", f"{name}=500")]
    code, said, _ = run(
        "synthesize", "phantom", place / "dcgan", *own, *twice, "-o", tmp_path / "made", "--dry-run", "--json"
    )
    assert code == 0
    counts = json.loads(said)
    assert [counts["real"][name] + counts["synthetic"][name] for name in names] == [500, 500]
    again = ("--to", f"{names[0]}=500", "--to", f"{names[0]}=600")
    code, _, said = run("synthesize", "phantom", place / "dcgan", *own, *again, "-o", tmp_path / "made", "--dry-run")
    assert (code, f"{names[0]} is named twice" in " ".join(said.split())) == (2, True)
    code, said, _ = run("synthesize", "phantom", place / "dcgan", *own, "-o", tmp_path / "made")
    assert code == 0
    assert "raremix study" in said
    code, said, _ = run("generator", "fit", "phantom", *own, "--size", "32", "--steps", "7", "--dry-run", "--json")
    assert code == 0
    assert json.loads(said)["steps"] == 7
    for more in ((), ("--dry-run",)):
        code, _, said = run("generator", "sample", place / "dcgan", "--class", "melanom", *more)
        assert code == 2
        assert "did you mean" in said or "unknown class" in said
        code, _, said = run("generator", "sample", place / "stargan", "--class", label, *more)
        assert (code, "raremix generator translate" in " ".join(said.split())) == (2, True)


def test_a_prepared_study_is_the_same_without_generators(prepared: Prepared, place: Path) -> None:
    spec = study(place, {"name": "fine_grained"})
    plan = plan_study(replace(spec, name="plain"), runs=place / "runs", cache=place / "cache")
    assert len(plan.jobs) == 1
