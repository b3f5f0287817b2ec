"""Files of vectors with what they were made from: parquet, npy or safetensors.

Shape letters: N rows, Q vectors per row (query tokens of an image, 1 of a text), E their width.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from qvft.errors import DataError
from qvft.files import new_file, read_text, write_text
from qvft.json_files import json_text

FloatArray = NDArray[np.float32]
SUFFIXES = (".parquet", ".npy", ".safetensors")
KEY = "qvft"
"""Key of names, shape and settings in the metadata of parquet and safetensors files."""
_ROWS = 1024
"""Rows per row group of parquet."""


@dataclass(frozen=True)
class VectorFile:
    """Vectors in a file, which are read block by block.

    Attributes:
        names: (N,) image files, or texts.
        shape: (N, Q, E).
        settings: `kind` (`image` or `text`), and what `vector_settings` says of the model.
    """

    path: Path
    names: Sequence[str]
    shape: tuple[int, int, int]
    settings: Mapping[str, Any]

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """Vectors (`rows`, Q, E) float32 in order; the last block may have fewer."""
        if self.path.suffix == ".parquet":
            import pyarrow.parquet as pq

            # Ahead of time it would read the whole file.
            file = pq.ParquetFile(self.path, pre_buffer=False)
            for batch in file.iter_batches(rows, columns=["vectors"]):
                flat = batch.column(0).flatten().flatten().to_numpy()
                yield flat.reshape(-1, *self.shape[1:])
            return
        whole: Any
        if self.path.suffix == ".npy":
            whole = np.lib.format.open_memmap(self.path, mode="r")
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
    """Opens a file of `write_vectors`; raises DataError if it is missing, damaged or another's."""
    require_suffix(path)
    if not path.is_file():
        raise DataError("no such file", where=str(path), do="write it with qvft embed")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            text = pq.read_schema(path).metadata[KEY.encode()]
        elif path.suffix == ".npy":
            text = read_text(_beside(path))
        else:
            text = safe_open(path, framework="numpy").metadata()[KEY]
        content = json.loads(text)
        names, settings = content["names"], content["settings"]
        found = VectorFile(path, names, tuple(content["shape"]), settings)
        next(found.blocks(1))
    except Exception as error:  # damaged files can raise nearly anything
        reason = f"is damaged, or not of qvft embed ({str(error) or type(error).__name__})"
        raise DataError(reason.replace("\n", " "), where=str(path)) from error
    return found


def write_vectors(
    path: Path, settings: Mapping[str, Any], batches: Iterable[tuple[Sequence[str], FloatArray]]
) -> VectorFile:
    """Writes batches of names (n,) and vectors (n, Q, E) as they come; complete or not at all.

    They wait in a temporary file of the folder, so memory holds a batch; safetensors takes all of
    them at the end. Names, shape and settings of an npy are in PATH.json.

    Raises:
        DataError: `path` exists, or there is no vector.
    """
    names: list[str] = []
    with new_file(path) as partial, tempfile.TemporaryFile(dir=path.parent) as raw:
        for some, block in batches:
            names += [name.encode("utf-8", "backslashreplace").decode() for name in some]
            raw.write(np.ascontiguousarray(block, dtype=np.float32).data)
            shape = (len(names), *block.shape[1:])
        raw.flush()
        if not names:
            raise DataError("no image can be decoded", where=str(path), expected="at least one")
        vectors = np.memmap(raw, dtype=np.float32, mode="r", shape=shape)
        about = json_text({"settings": settings, "shape": shape, "names": names})
        if path.suffix == ".parquet":
            _write_parquet(partial, settings["kind"], names, vectors, about)
        elif path.suffix == ".npy":
            with partial.open("wb") as stream:
                np.save(stream, vectors)
            write_text(_beside(path), about + "\n")
        else:
            save_file({"vectors": vectors}, partial, metadata={KEY: about})
    return VectorFile(path, names, shape, settings)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_parquet(
    path: Path, kind: str, names: Sequence[str], vectors: FloatArray, about: str
) -> None:
    """Columns `kind` and `vectors`, lists of Q lists of E numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, queries, width = vectors.shape
    lists = pa.list_(pa.list_(pa.float32(), width), queries)
    schema = pa.schema([(kind, pa.string()), ("vectors", lists)], metadata={KEY: about})
    # Numbers that never repeat do not compress.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, len(names), _ROWS):
            rows = pa.array(vectors[start : start + _ROWS].reshape(-1))
            for size in (width, queries):
                rows = pa.FixedSizeListArray.from_arrays(rows, size)
            writer.write_table(pa.table([names[start : start + _ROWS], rows], schema=schema))
