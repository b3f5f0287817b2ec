"""Files of vectors with what they were made from: parquet, npy or safetensors.

Shape letters: N rows, Q vectors per row (query tokens of an image, 1 of a text), E their width.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from qvft.errors import DataError
from qvft.files import new_file
from qvft.json_files import json_text, read_json, write_json

FloatArray = NDArray[np.float32]
SUFFIXES = (".parquet", ".npy", ".safetensors")
KEY = "qvft"
"""Key of the settings in the metadata of parquet and safetensors files."""
_ROWS = 1024
"""Rows per row group of parquet."""


@dataclass(frozen=True)
class VectorFile:
    """Vectors in a file; they are read block by block.

    Attributes:
        path: the file.
        names: (N,) image files, or texts.
        shape: (N, Q, E).
        settings: `kind` (`image` or `text`), `vectors` (`contrast` or `query_mean`), and the model:
            its name, hashes of its weights, its text cleaning.
    """

    path: Path
    names: Sequence[str]
    shape: tuple[int, int, int]
    settings: Mapping[str, Any]

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """Vectors (`rows`, Q, E) float32 in order; the last block may have fewer."""
        if self.path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(self.path, pre_buffer=False).iter_batches(
                rows, columns=["vectors"]
            ):
                flat = batch.column(0).flatten().flatten().to_numpy()
                yield flat.reshape(-1, *self.shape[1:])
            return
        whole: Any
        if self.path.suffix == ".npy":
            whole = np.load(self.path, mmap_mode="r")
        else:
            whole = safe_open(self.path, framework="numpy").get_slice("vectors")
        for start in range(0, self.shape[0], rows):
            yield whole[start : min(start + rows, self.shape[0])]

    def array(self) -> FloatArray:
        """All vectors (N, Q, E)."""
        return np.concatenate(list(self.blocks(_ROWS)))


def require_suffix(path: Path) -> None:
    """Raises DataError if a file's ending names no format of vectors."""
    if path.suffix not in SUFFIXES:
        raise DataError("is no file of vectors", where=str(path), expected=" or ".join(SUFFIXES))


def read_vectors(path: Path) -> VectorFile:
    """Opens a file of `write_vectors`.

    Raises:
        DataError: it is missing, damaged, or not written by `qvft embed`.
    """
    require_suffix(path)
    if not path.is_file():
        raise DataError("no such file", where=str(path), do="write it with qvft embed")
    try:
        names, shape, settings = _READERS[path.suffix](path)
        if len(names) != shape[0] or len(shape) != 3 or not {"kind", "vectors"} <= settings.keys():
            raise ValueError("names, vectors and settings do not fit")
    except DataError:
        raise
    except Exception as error:  # damaged files can raise nearly anything
        raise DataError(
            f"cannot be read ({str(error).splitlines()[0] if str(error) else error!r})",
            where=str(path),
            expected="a file of qvft embed"
            + (f", with {_beside(path).name}" * (path.suffix == ".npy")),
        ) from error
    return VectorFile(path, names, shape, settings)


def write_vectors(
    path: Path, settings: Mapping[str, Any], batches: Iterable[tuple[Sequence[str], FloatArray]]
) -> VectorFile:
    """Writes batches of names (n,) and vectors (n, Q, E) as they come; complete or not at all.

    parquet: columns `image` or `text`, and `vectors`, lists of Q lists of E float32. npy: an array
    (N, Q, E); names and settings are in PATH.json. safetensors: tensor `vectors` (N, Q, E), and
    `names`, the UTF-8 bytes of a JSON list. Vectors wait in a temporary file of the folder, so
    memory holds a batch; safetensors takes all of them at the end.

    Args:
        settings: as in `VectorFile`.

    Raises:
        DataError: `path` exists, or there is no vector.
    """
    names: list[str] = []
    shape = (0, 0, 0)
    with new_file(path) as partial, tempfile.TemporaryFile(dir=path.parent) as raw:
        for some, block in batches:
            if len(block):
                names += [name.encode("utf-8", "backslashreplace").decode() for name in some]
                raw.write(np.ascontiguousarray(block, dtype=np.float32).data)
                shape = (len(names), *block.shape[1:])
        raw.flush()
        if not names:
            raise DataError("no image can be decoded", where=str(path), expected="at least one")
        vectors = np.memmap(raw, dtype=np.float32, mode="r", shape=shape)
        _WRITERS[path.suffix](partial, names, vectors, settings)
        if path.suffix == ".npy":
            write_json(_beside(path), {"names": names, KEY: settings})
    return VectorFile(path, names, shape, settings)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_parquet(
    path: Path, names: list[str], vectors: FloatArray, settings: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, queries, width = vectors.shape
    lists = pa.list_(pa.list_(pa.float32(), width), queries)
    schema = pa.schema(
        [(settings["kind"], pa.string()), ("vectors", lists)], metadata={KEY: json_text(settings)}
    )
    # Numbers without equal ones neither compress nor make a dictionary.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, len(names), _ROWS):
            flat = pa.array(vectors[start : start + _ROWS].reshape(-1))
            rows = pa.FixedSizeListArray.from_arrays(flat, width)
            rows = pa.FixedSizeListArray.from_arrays(rows, queries)
            writer.write_table(pa.table([names[start : start + _ROWS], rows], schema=schema))


def _write_npy(path: Path, names: list[str], vectors: FloatArray, _: Mapping[str, Any]) -> None:
    with path.open("wb") as stream:
        np.save(stream, vectors)


def _write_safetensors(
    path: Path, names: list[str], vectors: FloatArray, settings: Mapping[str, Any]
) -> None:
    listed = np.frombuffer(json_text(names).encode(), dtype=np.uint8)
    save_file({"vectors": vectors, "names": listed}, path, metadata={KEY: json_text(settings)})


Read = tuple[Sequence[str], tuple[int, int, int], Mapping[str, Any]]


def _read_parquet(path: Path) -> Read:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        settings = json.loads(file.schema_arrow.metadata[KEY.encode()])
        lists = file.schema_arrow.field("vectors").type
        names = file.read(columns=[settings["kind"]]).column(0).to_pylist()
        shape = (file.metadata.num_rows, lists.list_size, lists.value_type.list_size)
    return names, shape, settings


def _read_npy(path: Path) -> Read:
    content = read_json(_beside(path))
    return content["names"], np.load(path, mmap_mode="r").shape, content[KEY]


def _read_safetensors(path: Path) -> Read:
    with safe_open(path, framework="numpy") as file:
        names = json.loads(file.get_tensor("names").tobytes())
        return names, tuple(file.get_slice("vectors").get_shape()), json.loads(file.metadata()[KEY])


_READERS: Mapping[str, Callable[[Path], Read]] = {
    ".parquet": _read_parquet,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
}
_WRITERS: Mapping[str, Callable[[Path, list[str], FloatArray, Mapping[str, Any]], None]] = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
}
