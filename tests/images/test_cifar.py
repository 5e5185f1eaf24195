"""CIFAR's files in both published formats, and files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molsam.errors import ConfigError, DataError
from molsam.images import cifar
from molsam.images import dataset as images
from tests.images.files import python2, write


@pytest.mark.parametrize("form", ["bin", "py"])
@pytest.mark.parametrize("classes", [10, 100])
def test_reads_what_was_written(tmp_path: Path, classes: int, form: str) -> None:
    pixels, labels = write(tmp_path, classes, form, size=10)
    folder = next(tmp_path.iterdir())
    for root in (tmp_path, folder):
        found, classes_found, tests = cifar.read(root, classes)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found.reshape(len(pixels), -1), pixels)
        np.testing.assert_array_equal(classes_found, labels)
        assert tests == 5


def test_the_files_are_those_of_python_2(tmp_path: Path) -> None:
    """The generated files use the old names and strings, so that reading them says something of the real ones."""
    write(tmp_path, 10, "py", size=10)
    content = (tmp_path / "cifar-10-batches-py" / "test_batch").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content
    assert b"T\x02\x00\x00\x00u1" in content


class Calls:
    """Pickled, a call of the function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Calls(Path.touch, Path("here")), "which is not called"),
        (Calls(eval, "1"), "asks for __builtin__.eval, which is not called"),
        ({"data": Calls(np.load, "x.npy"), "labels": [0]}, "which is not called"),
        ({"data": np.zeros((1, 9), np.uint8), "labels": [0]}, "are not 1 x 3072 bytes"),
        ({"data": np.zeros((1, 3072)), "labels": [0]}, "are not 1 x 3072 bytes"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "a label 10, but CIFAR-10 has 10 classes"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": "no"}, "is not a file of CIFAR's Python version"),
        ({"labels": [0]}, "is not a file of CIFAR's Python version"),
        ([], "is not a file of CIFAR's Python version"),
    ],
)
def test_nothing_else_is_unpickled(tmp_path: Path, content: Any, said: str) -> None:
    write(tmp_path, 10, "py", size=10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(python2(content))
    with pytest.raises(DataError, match=said) as caught:
        cifar.read(tmp_path, 10)
    assert "data_batch_2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold CIFAR-100"):
        cifar.read(tmp_path, 100)
    write(tmp_path, 100, "bin", size=10)
    write(tmp_path, 10, "py", size=10)
    (tmp_path / "cifar-100-binary" / "test.bin").write_bytes(b"\0" * 3073)
    with pytest.raises(DataError, match=r"test\.bin has 3073 bytes, which is not a multiple of the 3074"):
        cifar.read(tmp_path, 100)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_4"
    batch.write_bytes(batch.read_bytes()[:1000])
    with pytest.raises(DataError, match="is not a file of CIFAR's Python version"):
        cifar.read(tmp_path, 10)
    batch.unlink()
    with pytest.raises(DataError, match="data_batch_4 is missing"):
        cifar.read(tmp_path, 10)


def settings(root: Path | None, **changes: Any) -> dict[str, Any]:
    return {"display": "CIFAR-10", "classes": 10, "root": str(root) if root else None, "limit": None, **changes}


def test_batches_are_normalised_over_the_training_files(tmp_path: Path) -> None:
    pixels, labels = write(tmp_path, 10, "bin", size=20)
    dataset = images.load(settings(tmp_path))
    batch = dataset.batch(np.arange(len(dataset)))
    train = torch.from_numpy(pixels[:-10].reshape(-1, 3, 32, 32) / 255.0)
    mean, std = train.mean((0, 2, 3)).view(1, 3, 1, 1), train.std((0, 2, 3), unbiased=False).view(1, 3, 1, 1)
    raw = torch.from_numpy(pixels.reshape(-1, 3, 32, 32) / 255.0)
    torch.testing.assert_close(batch.images, ((raw - mean) / std).float(), rtol=1e-5, atol=1e-5)
    assert batch.targets[:, 0].tolist() == labels.tolist()
    assert batch.mask.all()
    assert not dataset.report.verified
    few = images.load(settings(tmp_path, limit=4))
    assert (len(few), few.tests) == (8, 4)
    assert few.targets[:, 0].tolist() == labels[[0, 25, 50, 75, 100, 102, 105, 107]].tolist()
    with pytest.raises(ConfigError, match=r"dataset\.root=FOLDER"):
        images.load(settings(None))


def test_augmented_images_are_shifted_and_mirrored(tmp_path: Path) -> None:
    """Every one equals one of the 162 crops of its padded self and of its mirror image, and all kinds occur."""
    write(tmp_path, 10, "bin", size=60)
    batch = images.load(settings(tmp_path)).batch(np.arange(300))
    torch.manual_seed(0)
    found = images.augment(batch).images
    padded = torch.nn.functional.pad(batch.images, [4] * 4)
    seen = set()
    for place, image in enumerate(found):
        for down in range(9):
            for right in range(9):
                crop = padded[place, :, down : down + 32, right : right + 32]
                seen |= {(place, down, right, turned) for turned in (False, True)
                         if torch.equal(image, crop.flip(2) if turned else crop)}  # fmt: skip
    assert len(seen) == len(found)
    for part, values in ((1, range(9)), (2, range(9)), (3, (False, True))):
        assert {one[part] for one in seen} == set(values)
    assert torch.equal(batch.targets, images.augment(batch).targets)
