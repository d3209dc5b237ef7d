"""Files: our own form, both foreign ones, and everything that must be refused instead of read."""

from __future__ import annotations

import builtins
import os
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from state_dicts import counting_state, without_counters

from wbc_jax.errors import WeightsError
from wbc_jax.weights import convert_torchvision, load_variables, read_metadata, readers, save_variables
from wbc_jax.weights.readers import read_arrays, write_arrays

VARIABLES = {
    "params": {"conv1": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 1, 4)}},
    "batch_stats": {"bn1": {"mean": np.full(4, 0.5, np.float32), "var": np.full(4, 2.0, np.float32)}},
}


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return counting_state("resnet18", num_classes=3)


def tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in state.items()}


def save_torch(value: object, path: Path, **options: bool) -> Path:
    with path.open("wb") as stream:
        torch.save(value, stream, **options)
    return path


def assert_holds(variables: dict, state: dict[str, np.ndarray]) -> None:
    expected = convert_torchvision("resnet18", state)
    assert np.array_equal(
        variables["params"]["layer4_1"]["conv2"]["kernel"], expected["params"]["layer4_1"]["conv2"]["kernel"]
    )
    assert np.array_equal(variables["batch_stats"]["bn1"]["var"], state["bn1.running_var"])


def test_own_form_round_trip_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.safetensors"
    save_variables(path, VARIABLES, {"classes": "a,b"})
    loaded = load_variables(path)
    assert np.array_equal(loaded["params"]["conv1"]["kernel"], VARIABLES["params"]["conv1"]["kernel"])
    assert np.array_equal(loaded["batch_stats"]["bn1"]["var"], VARIABLES["batch_stats"]["bn1"]["var"])
    assert read_metadata(path) == {"classes": "a,b", "format": "wbc_jax", "format_version": "1"}
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def test_transposed_views_are_stored_in_reading_order(tmp_path: Path) -> None:
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_variables(tmp_path / "v.safetensors", {"params": {"fc": {"kernel": view}}})
    assert load_variables(tmp_path / "v.safetensors")["params"]["fc"]["kernel"].tolist() == view.tolist()


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    values = np.asarray([1.5, -2.25], dtype=ml_dtypes.bfloat16)
    save_variables(tmp_path / "half.safetensors", {"params": {"fc": {"bias": values}}})
    bias = load_variables(tmp_path / "half.safetensors")["params"]["fc"]["bias"]
    assert bias.dtype == np.float32
    assert bias.tolist() == [1.5, -2.25]


def test_torch_zip_legacy_nested_and_wrapped(tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    wrapped = {f"module.{name}": value for name, value in tensors(state).items()}
    for index, (value, zipped) in enumerate(
        [(tensors(state), True), (tensors(state), False), ({"state_dict": wrapped, "epoch": 3}, True)]
    ):
        path = save_torch(value, tmp_path / f"{index}.pth", _use_new_zipfile_serialization=zipped)
        assert_holds(convert_torchvision("resnet18", path), state)


def test_torchvision_names_in_safetensors_need_no_torch(
    tmp_path: Path, state: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state, tmp_path / "r.safetensors")
    forbid_torch(monkeypatch)
    assert_holds(convert_torchvision("resnet18", tmp_path / "r.safetensors"), state)


def forbid_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refusing(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)


def test_pth_without_torch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_torch({"a": torch.zeros(1)}, tmp_path / "a.pth")
    forbid_torch(monkeypatch)
    with pytest.raises(WeightsError, match=r"(?s)torch is not installed.*pip install torch.*\.safetensors"):
        read_arrays(path)


class Evil:
    """Unpickled carelessly, this makes a directory."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "executed"
    path = save_torch(
        {"conv1.weight": torch.zeros(1), "x": Evil(proof)},
        tmp_path / "evil.pth",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match=r"(?s)could run code; nothing was run.*model\.state_dict\(\)"):
        read_arrays(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert proof.exists()


def test_truncated_files(tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(without_counters(state), whole)
    content = whole.read_bytes()
    for keep in (len(content) - 1, len(content) // 2, 100, 9):
        (tmp_path / "cut.safetensors").write_bytes(content[:keep])
        with pytest.raises(WeightsError, match=r"(?s)truncated.*cut\.safetensors.*again"):
            read_arrays(tmp_path / "cut.safetensors")
    content = save_torch(tensors(state), tmp_path / "whole.pth").read_bytes()
    for keep in (len(content) - 1, len(content) // 2, 100):
        (tmp_path / "cut.pth").write_bytes(content[:keep])
        with pytest.raises(WeightsError, match=r"(?s)not a complete torch state dict.*cut\.pth"):
            read_arrays(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
        (b"\x93NUMPY\x01\x00" + bytes(60), "NumPy array"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "not a weights file"),
        (b"\x80\x02cos\nsystem\n(S'true'\ntR.", "could run code"),
        (b"\x80\x04K\x05.", "not a complete torch state dict"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_arrays(path)
    assert str(path) in str(caught.value)


def test_missing_directory_and_zip_that_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        read_arrays(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="a directory"):
        read_arrays(tmp_path)
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match="not a complete torch state dict"):
        read_arrays(tmp_path / "arrays.npz")
    with pytest.raises(WeightsError, match="of Tensor, not of named arrays"):
        read_arrays(save_torch(torch.zeros(3), tmp_path / "tensor.pth"))
    with pytest.raises(WeightsError, match="no arrays"):
        read_arrays(save_torch({"epoch": 3}, tmp_path / "none.pth"))


def test_files_that_claim_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = save_torch({"a": torch.zeros(1).expand(10**11)}, tmp_path / "expanded.pth")
    assert huge.stat().st_size < 10_000
    with pytest.raises(WeightsError, match=r"372\.5 GiB"):
        read_arrays(huge)
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2_000_000))
    monkeypatch.setattr(readers, "MAX_BYTES", 1_000_000)
    with pytest.raises(WeightsError, match="claims"):
        read_arrays(bomb)


def test_torchvision_names_given_to_load_variables_name_the_converter(
    tmp_path: Path, state: dict[str, np.ndarray]
) -> None:
    save_file(state, tmp_path / "r.safetensors")
    with pytest.raises(WeightsError, match=r"(?s)torchvision's names of resnet18.*convert --arch resnet18"):
        load_variables(tmp_path / "r.safetensors")


def test_a_later_format_version_is_refused(tmp_path: Path) -> None:
    save_file({"params/a": np.zeros(1, np.float32)}, tmp_path / "x.safetensors", {"format_version": "2"})
    with pytest.raises(WeightsError, match="format version '2'"):
        load_variables(tmp_path / "x.safetensors")


def test_suffixes_that_are_not_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        save_variables(tmp_path / "model.pth", VARIABLES)
    with pytest.raises(WeightsError, match=r"suffix '\.npz'"):
        write_arrays(tmp_path / "model.npz", {"a": np.zeros(1)}, {})


@pytest.mark.parametrize("name", ["full.safetensors", "full.pth"])
def test_a_failed_write_leaves_the_old_file_and_no_draft(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    write_arrays(path, {"a": np.zeros(2, np.float32)}, {})
    before = path.read_bytes()

    def full_disk(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(WeightsError, match=r"(?s)No space left.*free that much space"):
        write_arrays(path, {"a": np.ones(2, np.float32)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_does_not_read_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaging(arrays: dict, path: Path, metadata: dict) -> None:
        save_file({name: array + 1 for name, array in arrays.items()}, path, metadata)

    monkeypatch.setattr(readers, "save_file", damaging)
    with pytest.raises(WeightsError, match="does not read back"):
        write_arrays(tmp_path / "a.safetensors", {"a": np.zeros(2, np.float32)}, {})
    assert list(tmp_path.iterdir()) == []
