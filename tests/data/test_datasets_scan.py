"""Scanning raw folders: classes by folder, flaws with reasons, duplicates and conflicts, on generated images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wbc_jax.data.datasets.scan import (
    NO_ATTRIBUTES,
    Flaw,
    RawImage,
    Scan,
    listing_digest,
    scan_class_folders,
    with_digests,
    without_duplicates,
)


def save_image(path: Path, seed: int = 0, side: int = 16) -> Path:
    """A small picture of noise; another seed, other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def raw(identity: str, sha256: str, cell_class: str = "monocyte", **fields: object) -> RawImage:
    return RawImage(id=identity, path=Path(identity), cell_class=cell_class, sha256=sha256, **fields)  # type: ignore[arg-type]


def reasons(flaws: list[Flaw]) -> dict[str, str]:
    return {flaw.id: flaw.reason for flaw in flaws}


def test_class_folders_are_found_under_and_above_split_folders(tmp_path: Path) -> None:
    save_image(tmp_path / "Train" / "Neutrophils" / "a.png")
    save_image(tmp_path / "MONOCYTE" / "test" / "b.png")
    save_image(tmp_path / "baso" / "c.JPG")
    scan = scan_class_folders(tmp_path, classes=("neutrophil", "monocyte", "basophil"))
    found = {image.id: (image.cell_class, image.source_split) for image in scan.images}
    assert found == {
        "Train/Neutrophils/a.png": ("neutrophil", "train"),
        "MONOCYTE/test/b.png": ("monocyte", "test"),
        "baso/c.JPG": ("basophil", ""),
    }


def test_everything_left_out_is_listed_with_its_reason(tmp_path: Path) -> None:
    save_image(tmp_path / "monocyte" / "a.png")
    save_image(tmp_path / "monocyte" / ".DS_Store.jpg")
    save_image(tmp_path / "mixt" / "b.png")
    save_image(tmp_path / "artefact" / "c.png")
    (tmp_path / "monocyte" / "d.webp").write_bytes(b"x")
    (tmp_path / "licence.txt").write_text("not in a class folder, of no interest")
    scan = scan_class_folders(tmp_path, classes=("monocyte",), ignored_folders=("mixt",))
    assert [image.id for image in scan.images] == ["monocyte/a.png"]
    listed = reasons(scan.skipped)
    assert set(listed) == {"monocyte/.DS_Store.jpg", "mixt/b.png", "artefact/c.png", "monocyte/d.webp"}
    assert "operating system" in listed["monocyte/.DS_Store.jpg"]
    assert "'artefact' is not a class" in listed["artefact/c.png"]
    assert ".jpg" in listed["monocyte/d.webp"]


def test_digests_are_those_of_the_files_and_unreadable_files_are_problems(tmp_path: Path) -> None:
    import hashlib

    path = save_image(tmp_path / "a.png")
    (tmp_path / "empty.png").touch()
    images = [
        RawImage(id=name, path=tmp_path / name, cell_class="monocyte")
        for name in ("a.png", "empty.png", "gone.png")
    ]
    images.append(RawImage(id="a.png#0,0,8,8", path=path, cell_class="monocyte", box=(0, 0, 8, 8)))
    images.append(RawImage(id="a.png#8,0,16,8", path=path, cell_class="monocyte", box=(8, 0, 16, 8)))
    scan = with_digests(Scan(images=images), threads=2)
    assert reasons(scan.problems) == {
        "empty.png": "empty file",
        "gone.png": "cannot be read: No such file or directory",
    }
    digests = [image.sha256 for image in scan.images]
    assert digests[0] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(set(digests)) == 3, "two crops of one image are no duplicates of one another"


def test_of_identical_images_the_test_image_stays() -> None:
    scan = Scan(
        images=[
            raw("a", "1", source_split="train"),
            raw("b", "1", source_split="test"),
            raw("c", "2"),
            raw("d", "2", attributes=(0,) * len(NO_ATTRIBUTES)),
            raw("e", "3"),
        ]
    )
    result = without_duplicates(scan)
    assert [image.id for image in result.images] == ["b", "d", "e"]
    assert reasons(result.skipped) == {"a": "duplicate of b", "c": "duplicate of d"}
    assert result.problems == []


def test_conflicting_labels_are_a_problem_unless_known() -> None:
    images = [raw("x/a", "1", "monocyte"), raw("y/b", "1", "basophil"), raw("z/c", "2")]
    unknown = without_duplicates(Scan(images=images))
    assert [image.id for image in unknown.images] == ["z/c"]
    assert set(reasons(unknown.problems)) == {"x/a", "y/b"}
    assert "x/a (monocyte), y/b (basophil)" in unknown.problems[0].reason
    known = without_duplicates(Scan(images=images), known_conflicts=[frozenset({"a", "b"})])
    assert known.problems == []
    assert set(reasons(known.skipped)) == {"x/a", "y/b"}


@pytest.mark.parametrize("change", ["add", "remove", "rewrite", "rename"])
def test_the_listing_digest_follows_the_files(tmp_path: Path, change: str) -> None:
    paths = [save_image(tmp_path / "m" / f"{n}.png", n) for n in range(3)]
    before = listing_digest(tmp_path)
    assert listing_digest(tmp_path) == before
    if change == "add":
        save_image(tmp_path / "m" / "9.png")
    elif change == "remove":
        paths[0].unlink()
    elif change == "rewrite":
        save_image(paths[0], seed=7, side=17)
    else:
        paths[0].rename(tmp_path / "m" / "z.png")
    assert listing_digest(tmp_path) != before


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save_image(tmp_path / "real" / "monocyte" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "monocyte").symlink_to(tmp_path / "real" / "monocyte")
    (tmp_path / "real" / "monocyte" / "loop").symlink_to(tmp_path / "root")
    scan = scan_class_folders(tmp_path / "root", classes=("monocyte",))
    assert [image.id for image in scan.images] == ["monocyte/a.png"]
