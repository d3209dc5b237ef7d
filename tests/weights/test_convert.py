"""The convert command: both directions, the file checked, the head exchanged, usable by torchvision itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from state_dicts import counting_state, without_counters
from torch_reference import torchvision_models

from wbc_jax.commands.convert import ConvertOptions, convert, convert_file
from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.weights import load_variables, read_metadata


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "resnet18.pth"
    state = {name: torch.from_numpy(array) for name, array in counting_state("resnet18").items()}
    with path.open("wb") as stream:
        torch.save(state, stream)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back_loads_strictly_into_torchvision(pth: Path, tmp_path: Path, suffix: str) -> None:
    ours, back = tmp_path / "ours.safetensors", tmp_path / f"back{suffix}"
    report = convert(ConvertOptions(arch="resnet18", input=pth, output=ours))
    assert (report.parameters, report.num_classes, report.new_head) == (11_689_512, 1000, False)
    assert read_metadata(ours)["arch"] == "resnet18"
    assert "resnet18, 11,689,512 parameters" in str(report)
    convert(ConvertOptions(arch="resnet18", input=ours, output=back, direction="to_torch"))
    state = load_file(back) if suffix == ".safetensors" else torch.load(io.BytesIO(back.read_bytes()))
    module = torchvision_models().resnet18()
    module.load_state_dict(state, strict=True)
    for name, array in without_counters(counting_state("resnet18")).items():
        assert np.array_equal(module.state_dict()[name].numpy(), array), name


def test_head_can_be_exchanged(pth: Path, tmp_path: Path) -> None:
    report = convert_file("resnet18", pth, tmp_path / "five.safetensors", 5)
    assert (report.num_classes, report.new_head) == (5, True)
    kernel = load_variables(report.output)["params"]["fc"]["kernel"]
    assert kernel.shape == (512, 5)
    assert 0.9 * 512**-0.5 < np.abs(kernel).max() <= 512**-0.5


def test_wrong_architecture_writes_nothing(pth: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="these are the weights of resnet18"):
        convert(ConvertOptions(arch="densenet121", input=pth, output=tmp_path / "out.safetensors"))
    assert list(tmp_path.iterdir()) == []


def test_all_bad_options_at_once(pth: Path) -> None:
    bad = ConvertOptions(arch="resnet19", input=None, output=pth, direction="to_torch", num_classes=0)
    with pytest.raises(UsageError) as caught:
        convert(bad)
    for expected in ("arch 'resnet19'", "input: to_torch needs", "num_classes 0", "exists"):
        assert expected in str(caught.value)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        convert(ConvertOptions(arch="resnet18", input=pth, output=pth.with_suffix(".pt")))


def test_without_input_the_published_file_is_fetched(
    pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch_pretrained(arch: str, folder: Path, release: str) -> Path:
        asked.append((arch, folder, release))
        return pth

    monkeypatch.setattr("wbc_jax.commands.convert.fetch_pretrained", fetch_pretrained)
    convert(ConvertOptions(arch="resnet18", output=tmp_path / "out.safetensors"))
    assert asked == [("resnet18", tmp_path, "v1")]
