import gzip
from pathlib import Path

import polars as pl
import pytest

from raremix.core import tables
from raremix.core.errors import ConfigError, ManifestError
from raremix.data.sources.text_table import need_columns, read_table

TEXT = "file,name\n001,Mélanome\n,x\n"


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path / "t.csv", TEXT.encode(encoding))
    table = read_table(path, encoding=encoding)
    assert table.rows() == [("001", "Mélanome"), (None, "x")]
    if encoding.startswith("utf-8"):
        assert read_table(path).rows() == table.rows()


@pytest.mark.parametrize(
    ("written", "advised"), [("cp1252", "cp1252"), ("latin-1", "cp1252"), ("utf-16", "utf-16"), ("utf-32", "utf-32")]
)
def test_the_encoding_is_named(tmp_path: Path, written: str, advised: str) -> None:
    path = put(tmp_path / "t.csv", TEXT.encode(written))
    with pytest.raises(ManifestError, match=f'is not UTF-8 in line [12]: set encoding = "{advised}"'):
        read_table(path)
    assert read_table(path, encoding=advised)["name"][0] == "Mélanome"


def test_the_encoding_of_the_header(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match='not UTF-8 in line 1: set encoding = "cp1252"'):
        read_table(put(tmp_path / "t.csv", "fichier,résultat\na,b\n".encode("cp1252")))


def test_a_wrong_encoding(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", TEXT.encode())
    with pytest.raises(ManifestError, match=r'is not ascii .*: set encoding = "utf-8"'):
        read_table(path, encoding="ascii")
    with pytest.raises(ConfigError, match='encoding = "utf8x" is unknown: try "utf-8", "cp1252" or "utf-16"'):
        read_table(path, encoding="utf8x")


def test_packed_and_parquet(tmp_path: Path) -> None:
    rows = read_table(put(tmp_path / "t.csv.gz", gzip.compress(TEXT.encode()))).rows()
    pl.DataFrame({"file": ["001", None], "name": ["Mélanome", "x"]}).write_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").rows() == rows
    for damaged in (b"", b"x", gzip.compress(TEXT.encode())[:-9]):
        with pytest.raises(ManifestError):
            read_table(put(tmp_path / "t.csv.gz", damaged))


def test_a_packed_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_CSV_BYTES", 1 << 20)
    with pytest.raises(ManifestError, match="unpacks to more than 1 MiB"):
        read_table(put(tmp_path / "t.csv.gz", gzip.compress(b"a,b\n" * (1 << 22))))
    with pytest.raises(ManifestError, match="is more than 1 MiB"):
        read_table(put(tmp_path / "t.csv", b"a,b\n" * (1 << 19)))


def test_column_names(tmp_path: Path) -> None:
    assert read_table(put(tmp_path / "t.csv", b"a , Train \n1,2\n")).columns == ["a", "Train"]
    # Columns without a name are common, and harmless.
    assert read_table(put(tmp_path / "t.csv", b"a,b,,,\n1,2,3,4,5\n")).width == 5
    for header in (b"a,b,a\n1,2,3\n", b"a,b,a \n1,2,3\n"):
        with pytest.raises(ManifestError, match="two columns called 'a'"):
            read_table(put(tmp_path / "t.csv", header))
    assert read_table(put(tmp_path / "t.csv", b"x_duplicated_0,y\n1,2\n")).columns == ["x_duplicated_0", "y"]


def test_needed_columns() -> None:
    with pytest.raises(ManifestError, match=r"t.csv has no column 'imge': did you mean 'image'\? it has image, b"):
        need_columns(pl.DataFrame({"image": ["a"], "b": ["c"]}), ["b", "imge"], table="t.csv")
