"""Where a language model's files lie: a Hugging Face folder, with one safetensors file or several."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from models.zoo.folder import WEIGHTS, Array, Tensors, read_json

INDEX = "model.safetensors.index.json"


class Checkpoint(Mapping[str, Array]):
    """The tensors of a folder, float32, read when they are asked for.

    Raises `FileNotFoundError`, or `ValueError` for files that are no safetensors, or none that fit their index.
    """

    def __init__(self, folder: Path) -> None:
        if (folder / INDEX).exists():
            places = read_json(folder / INDEX).get("weight_map")
            if not isinstance(places, dict):
                raise ValueError(f"{folder / INDEX} has no weight_map")
            self._files = {file: Tensors(_inside(folder, file)) for file in sorted(set(places.values()))}
            self._places: dict[str, Tensors] = {name: self._files[file] for name, file in places.items()}
        else:
            self._files = {WEIGHTS: Tensors(folder / WEIGHTS)}
            self._places = dict.fromkeys(self._files[WEIGHTS], self._files[WEIGHTS])
        self._folder = folder

    def __getitem__(self, name: str) -> Array:
        return self._file(name)[name]

    def rows(self, name: str, ids: Sequence[int]) -> Array:
        """Rows of a matrix, without reading the others."""
        return self._file(name).rows(name, ids)

    def release(self) -> None:
        """Gives the memory of what was read back to the system."""
        for file in self._files.values():
            file.release()

    def _file(self, name: str) -> Tensors:
        if name not in self._places:
            raise ValueError(f"{self._folder} has no tensor {name!r}")
        return self._places[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, or of those of several."""
        digests = [file.digest for file in self._files.values()]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _inside(folder: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ValueError(f"{folder / INDEX}: weight_map must name files of the folder, got {name!r}")
    return folder / name
