"""Trunks as torchvision loads them: its own modules answer as ours do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from wbc_jax.errors import UsageError
from wbc_jax.export.trunks import torchvision_trunks, variables_from_trunks, write_trunks
from wbc_jax.models import create_model
from wbc_jax.weights.merge import flatten
from wbc_jax.weights.naming import leaves


def variables_of(name: str, size: int = 32, **fields: Any) -> tuple[Any, dict[str, Any]]:
    """Random weights and, unlike fresh ones, random statistics."""
    model = create_model(name, num_classes=3, **fields)
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        kind = path[-1].key
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        if kind == "kernel":
            return (random.normal(size=leaf.shape) * np.sqrt(1.5 / fan_in)).astype(np.float32)
        low, high = {"scale": (0.7, 1.2), "var": (0.7, 1.3)}.get(kind, (-0.2, 0.2))
        return random.uniform(low, high, leaf.shape).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def test_scams_branches_answer_as_torchvisions_modules(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch_reference import torchvision_models

    model, variables = variables_of("scam")
    trunks = torchvision_trunks("scam", model, variables)
    assert trunks == {"resnet": "resnet50", "densenet": "densenet121"}
    files = write_trunks(tmp_path / "scam.pth", trunks, variables)
    assert {path.name for path in files.values()} == {"scam_resnet.pth", "scam_densenet.pth"}

    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    _, endpoints = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    for part, head in (("resnet", "fc"), ("densenet", "classifier")):
        module = getattr(torchvision_models(), trunks[part])(weights=None)
        setattr(module, head, torch.nn.Identity())
        module.load_state_dict(torch.load(files[part], weights_only=True), strict=True)
        with torch.no_grad():
            found = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
        expected = np.asarray(endpoints[part]).mean(axis=(1, 2))
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_way_back_restores_every_array(tmp_path: Path) -> None:
    model, variables = variables_of("resnet18")
    trunks = torchvision_trunks("resnet18", model, variables)
    files = write_trunks(tmp_path / "r.safetensors", trunks, variables)
    assert list(files.values()) == [tmp_path / "r.safetensors"]
    zeros = jax.tree.map(np.zeros_like, variables)
    back = flatten(variables_from_trunks(files, trunks, zeros))
    for name, leaf in flatten(variables).items():
        np.testing.assert_array_equal(back[name], leaf, err_msg=name)


@pytest.mark.parametrize(
    ("name", "arch", "num_classes"),
    [("amnet", "se_resnext50_32x4d", None), ("map_resnet50", "resnet50", 1000), ("dpn68", "dpn68", 3)],
)
def test_trunks_of_other_networks_under_their_librarys_names(
    tmp_path: Path, name: str, arch: str, num_classes: int | None
) -> None:
    model, variables = variables_of(name)
    trunks = torchvision_trunks(name, model, variables)
    assert list(trunks.values()) == [arch]
    files = write_trunks(tmp_path / "net.safetensors", trunks, variables)
    (file,) = files.values()
    assert file.name == ("net.safetensors" if arch == name else "net_trunk.safetensors")
    assert {key: array.shape for key, array in load_file(file).items()} == {
        leaf.torch_name: leaf.torch_shape for leaf in leaves(arch, num_classes)
    }
    back = flatten(variables_from_trunks(files, trunks, jax.tree.map(np.zeros_like, variables)))
    inside = [path for path in back if arch == name or path.split("/")[1] == "trunk"]
    assert len(inside) == len(leaves(arch, num_classes))
    for path in inside:
        np.testing.assert_array_equal(back[path], flatten(variables)[path], err_msg=path)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("scam_tiny", {}, "torchvision has no resnet_tiny and no densenet_tiny"),
        ("scam_tiny", {"branches": "densenet"}, "torchvision has no densenet_tiny"),
        ("scam", {"cut": "14", "branches": "resnet"}, "cut at the 14x14 stage"),
    ],
)
def test_what_torchvision_does_not_have_is_refused(name: str, fields: dict[str, str], message: str) -> None:
    model, variables = variables_of(name, **fields)
    with pytest.raises(UsageError, match=message):
        torchvision_trunks(name, model, variables)
