"""Sizes, names and shapes of the networks, by shape inference: no weights are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import NETWORKS
from flax import traverse_util
from torch_reference import torchvision_models

from wbc_jax.models import create_model
from wbc_jax.models.psa import PyramidSqueezeAttention
from wbc_jax.models.summary import count_parameters, format_summary, summarise
from wbc_jax.weights.naming import TORCHVISION_ARCHITECTURES

GOLDEN = Path(__file__).parent / "parameter_paths"


def variable_shapes(model: Any, image_size_px: int = 64) -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, image_size_px, image_size_px, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def modules_of(variables: dict[str, Any]) -> dict[str, int]:
    return {name: count_parameters(tree) for name, tree in variables["params"].items()}


@pytest.mark.parametrize("name", TORCHVISION_ARCHITECTURES)
def test_published_totals_are_torchvisions(name: str) -> None:
    """And ours, by test_contract.py."""
    import torch

    with torch.device("meta"):
        reference = getattr(torchvision_models(), name)()
    _, classes, total = NETWORKS[name]
    assert (classes, sum(p.numel() for p in reference.parameters())) == (1000, total)


def test_trunks_without_head() -> None:
    for name, total in (("resnet50", 23_508_032), ("densenet121", 6_953_856)):
        assert count_parameters(variable_shapes(create_model(name, num_classes=None))["params"]) == total


def test_resnet50_stages() -> None:
    modules = modules_of(variable_shapes(create_model("resnet50", num_classes=1000)))
    stage = {s: sum(n for m, n in modules.items() if m.startswith(f"layer{s}_")) for s in (1, 2, 3, 4)}
    assert modules["conv1"] + modules["bn1"] == 9_536
    assert stage == {1: 215_808, 2: 1_219_584, 3: 7_098_368, 4: 14_964_736}


def test_convolutions_and_norms_are_as_many_as_published() -> None:
    for name, convolutions, norms in (("resnet50", 53, 53), ("densenet121", 120, 121)):
        variables = variable_shapes(create_model(name, num_classes=1000))
        leaves = traverse_util.flatten_dict(variables["params"]).values()
        assert sum(len(leaf.shape) == 4 for leaf in leaves) == convolutions
        statistics = traverse_util.flatten_dict(variables["batch_stats"])
        assert sum(path[-1] == "mean" for path in statistics) == norms


def test_scam_by_part() -> None:
    """The layer table of blocks.md 10."""
    modules = modules_of(variable_shapes(create_model("scam", num_classes=5)))
    assert modules == {
        "resnet": 23_508_032,
        "densenet": 6_953_856,
        "project_resnet": 1_049_088,
        "project_densenet": 524_800,
        "attention": 100 + 33_312,
        "hidden": 131_328,
        "logits": 257 * 5,
    }
    assert sum(modules.values()) == 32_201_801


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({"fusion": "concat"}, 32_431_721),
        ({"attention": "none"}, 32_201_801 - 33_412),
        ({"attention": "sam"}, 32_201_801 - 33_312),
        ({"attention": "cam"}, 32_201_801 - 100),
        ({"attention": "parallel"}, 32_201_801),
        ({"attention": "csam"}, 32_201_801),
        ({"attention": "se"}, 32_201_801 - 100),
        ({"attention": "eca"}, 32_201_801 - 33_412 + 5),
        ({"branches": "resnet"}, 32_201_801 - 6_953_856 - 524_800),
        ({"branches": "densenet"}, 32_201_801 - 23_508_032 - 1_049_088),
        # densenet121 up to block3 without transition3: 7,978,856 less everything behind it.
        ({"cut": "14"}, 8_543_296 + 4_267_392 + 2 * 524_800 + 33_412 + 131_328 + 257 * 5),
    ],
    ids=str,
)
def test_scam_variants(fields: dict[str, str], total: int) -> None:
    assert count_parameters(variable_shapes(create_model("scam", num_classes=5, **fields))["params"]) == total


def test_cut_densenet_is_the_full_one_less_what_follows() -> None:
    whole = modules_of(variable_shapes(create_model("densenet121", num_classes=None)))
    behind = sum(n for m, n in whole.items() if m.startswith(("block4", "transition3", "norm5")))
    assert sum(whole.values()) - behind == 4_267_392


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.txt")))
def test_parameter_paths_are_frozen(name: str) -> None:
    """Paths and shapes are the checkpoint format; a change here breaks every stored checkpoint."""
    size_px = 224 if name == "amnet" else 64  # its gate's kernel is as large as the last map
    leaves = traverse_util.flatten_dict(variable_shapes(create_model(name, num_classes=5), size_px), sep="/")
    found = [f"{path} {'x'.join(map(str, leaf.shape))} {leaf.dtype}" for path, leaf in sorted(leaves.items())]
    assert found == (GOLDEN / f"{name}.txt").read_text().splitlines()


def test_endpoint_shapes_at_224() -> None:
    shapes = {n: s[1:] for n, s, _ in summarise(create_model("scam", num_classes=5), 224).endpoints}
    expected = {
        "resnet/stem": (112, 112, 64),
        "resnet/stage1": (56, 56, 256),
        "resnet/stage2": (28, 28, 512),
        "resnet/stage3": (14, 14, 1024),
        "resnet/stage4": (7, 7, 2048),
        "densenet/stem": (112, 112, 64),
        "densenet/block1": (56, 56, 256),
        "densenet/transition1": (28, 28, 128),
        "densenet/block2": (28, 28, 512),
        "densenet/transition2": (14, 14, 256),
        "densenet/block3": (14, 14, 1024),
        "densenet/transition3": (7, 7, 512),
        "densenet/stage4": (7, 7, 1024),
        "resnet": (7, 7, 2048),
        "densenet": (7, 7, 1024),
        "fused": (7, 7, 512),
        "attended": (7, 7, 512),
        "pooled": (512,),
        "pre_logits": (256,),
        "logits": (5,),
    }
    assert {name: shapes[name] for name in expected} == expected
    cut = {n: s[1:] for n, s, _ in summarise(create_model("scam", num_classes=5, cut="14"), 224).endpoints}
    assert (cut["resnet"], cut["densenet"], cut["fused"]) == ((14, 14, 1024), (14, 14, 1024), (14, 14, 512))


@pytest.mark.parametrize(("size", "map_size"), [(64, 8), (96, 12)])
def test_tiny_scam_ends_with_an_eighth_of_the_image(size: int, map_size: int) -> None:
    shapes = {n: s[1:] for n, s, _ in summarise(create_model("scam_tiny", num_classes=5), size).endpoints}
    assert shapes["resnet"] == (map_size, map_size, 128)
    assert shapes["densenet"][:2] == (map_size, map_size)
    assert shapes["attended"] == (map_size, map_size, 128)


@pytest.mark.parametrize("size", [161, 97])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_stage_shapes_at_odd_sizes_are_torchvisions(name: str, size: int) -> None:
    import torch

    with torch.device("meta"):
        module = getattr(torchvision_models(), name)()
        seen: dict[str, tuple[int, ...]] = {}
        ours = {f"layer{i}": f"stage{i}" for i in range(1, 5)}
        ours |= {f"features.denseblock{i}": f"block{i}" for i in range(1, 5)}
        ours |= {f"features.transition{i}": f"transition{i}" for i in range(1, 4)}
        ours |= {"relu": "stem", "features.relu0": "stem", "features.norm5": "stage4"}

        def note(torch_name: str) -> Any:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                batch, channels, height, width = output.shape
                seen[ours[torch_name]] = (batch, height, width, channels)

            return hook

        for torch_name, submodule in module.named_modules():
            if torch_name in ours:
                submodule.register_forward_hook(note(torch_name))
        module.eval()(torch.empty(2, 3, size, size))
    found = {
        n: s for n, s, _ in summarise(create_model(name, num_classes=1000), size, batch_size=2).endpoints
    }
    assert len(seen) >= 5
    assert {stage: found[stage] for stage in seen} == seen


def test_summary_lists_in_order_of_computation_and_adds_up() -> None:
    summary = summarise(create_model("scam_tiny", num_classes=3), 64)
    names = [name for name, _, _ in summary.endpoints]
    positions = [names.index(n) for n in ("resnet/stem", "resnet/stage1", "fused", "attended", "logits")]
    assert positions == sorted(positions)
    assert sum(n for _, n in summary.modules) == summary.parameters
    table = format_summary(summary)
    assert f"{summary.parameters:,}" in table
    assert all(name in table for name in names)


def test_count_parameters_counts_arrays_and_shapes() -> None:
    tree = {"a": np.zeros((2, 3)), "b": {"c": jax.ShapeDtypeStruct((4,), jnp.float32), "d": np.zeros(())}}
    assert count_parameters(tree) == 11


@pytest.mark.parametrize(
    ("channels", "total"), [(64, 27_121), (128, 108_450), (256, 433_732), (512, 1_734_792)]
)
def test_pyramid_squeeze_attention(channels: int, total: int) -> None:
    module = PyramidSqueezeAttention()
    shape = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
    assert count_parameters(jax.eval_shape(module.init, jax.random.key(0), shape)["params"]) == total


@pytest.mark.parametrize(
    ("name", "num_classes", "total"),
    [
        ("epsanet50", 1000, 22_561_715),
        ("epsanet50", None, 20_512_715),
        ("epsanet101", 1000, 38_900_279),
        ("map_resnet50", None, 25_588_063),
        ("map_resnet50", 5, 25_588_063 + 1001 * 5),
    ],
)
def test_epsanet_and_attribute_predictor(name: str, num_classes: int | None, total: int) -> None:
    shapes = variable_shapes(create_model(name, num_classes=num_classes))
    assert count_parameters(shapes["params"]) == total


def test_daffnet_by_part() -> None:
    """The layer table of blocks.md 10."""
    modules = modules_of(variable_shapes(create_model("daffnet", num_classes=5)))
    assert modules == {
        "semantic": 20_512_715 + 1_600 + 2_049_000,
        "map": 25_557_032 + 31_031,
        "mae": 4_891 + 209_616 + 400,
        "logits": 1129 * 5,
    }
    assert sum(modules.values()) == 48_371_930


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({"semantic_name": "resnet50", "spatial_gate": "none", "morphology": "none"}, 25_557_032 + 1001 * 5),
        ({"spatial_gate": "none", "morphology": "none"}, 22_561_715 + 1001 * 5),
        ({"morphology": "none"}, 22_563_315 + 1001 * 5),
        ({"morphology": "map"}, 22_563_315 + 25_588_063 + 1012 * 5),
        ({"morphology": "map", "map_code": "probabilities"}, 22_563_315 + 25_588_063 + 1032 * 5),
        ({"spatial_gate": "last"}, 48_371_930 - 1_500),
        ({"mae_padding": "same"}, 48_371_930),
        # The backbone comparison: torchvision's totals in place of the semantic branch's 22,563,315.
        ({"semantic_name": "vgg19", "spatial_gate": "none"}, 48_371_930 - 22_563_315 + 143_667_240),
        ({"semantic_name": "vit_b_16", "spatial_gate": "none"}, 48_371_930 - 22_563_315 + 86_567_656),
    ],
    ids=str,
)
def test_rows_of_daffnets_ablation(fields: dict[str, str], total: int) -> None:
    model = create_model("daffnet", num_classes=5, **fields)
    assert count_parameters(variable_shapes(model)["params"]) == total


@pytest.mark.parametrize(
    ("name", "num_classes", "total"),
    [
        ("resnext50_32x4d", 1000, 25_028_904),
        ("se_resnext50_32x4d", 1000, 27_559_896),
        ("se_resnext50_32x4d", None, 25_510_896),
        ("se_resnext50_32x4d", 4, 25_519_092),
        ("se_resnet50", 1000, 28_088_024),
    ],
)
def test_resnext_and_squeeze_excite(name: str, num_classes: int | None, total: int) -> None:
    shapes = variable_shapes(create_model(name, num_classes=num_classes))
    assert count_parameters(shapes["params"]) == total


def test_amnet_by_part() -> None:
    """The layer table of blocks.md 10; the gate's kernel is as large as the last map, 7x7 at 224 px."""
    modules = modules_of(variable_shapes(create_model("amnet", num_classes=4), image_size_px=224))
    assert modules == {
        "trunk": 25_510_896,
        "attention": 135_168 + 526_464 + 104_448,
        "fc": 2049 * 4,
    }
    assert sum(modules.values()) == 26_285_172


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"ge_kind": "theta_minus"}, -104_448),
        ({"ge_kind": "theta_plus"}, 630_912 - 104_448),
        ({"ge_extent": "2"}, 22_528 - 104_448),
        ({"first_features": "stem7x7_2048"}, 305_152 - 135_168),
        ({"use_se": False}, -526_464 - 135_168),
        ({"use_ge": False}, -104_448),
        ({"use_fusion": False}, -135_168),
    ],
    ids=str,
)
def test_variants_of_amnet(fields: dict[str, Any], change: int) -> None:
    shapes = variable_shapes(create_model("amnet", num_classes=4, **fields), image_size_px=224)
    assert count_parameters(shapes["params"]) == 26_285_172 + change
