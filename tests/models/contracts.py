"""What each network promises, as a table: parameters, head, endpoints, and a small form that is quick to compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one structure.

    Attributes:
        head: our name of the classifying layer.
        maps: endpoints (B, h, w, C) that there are at least.
        vectors: endpoints (B, F) that there are at least.
        shallow: fields that leave one block of each kind, at full width: depth repeats the same.
        small: by name, fields of a form that computes in a moment; one for each structure.
        normed: whether there is BatchNorm, and so statistics.
        size_px: side of the images that the small forms read.
    """

    head: str
    maps: set[str]
    vectors: set[str] = field(default_factory=lambda: {"pooled", "pre_logits"})
    shallow: Fields = field(default_factory=dict)
    small: dict[str, Fields] = field(default_factory=dict)
    normed: bool = True
    size_px: int = 32


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        head="fc",
        maps={"stem", "stage1", "stage4"},
        shallow={"stage_sizes": (1, 1, 1, 1)},
        small={
            "resnet_tiny": {"width": 4},
            "resnet50": {"width": 4, "stage_sizes": (1, 2)},
            "epsanet_tiny": {"stage_sizes": (1, 2)},
        },
    ),
    "densenet": Family(
        head="classifier",
        maps={"stem", "block1", "transition1"},
        shallow={"block_sizes": (1, 1, 1, 1)},
        small={
            "densenet_tiny": {"width": 8, "growth": 4, "block_sizes": (2, 2)},
            "densenet121": {"width": 8, "growth": 4, "block_sizes": (2, 1)},
        },
    ),
    "scam": Family(
        head="logits",
        maps={"attended", "fused", "resnet", "densenet"},
        shallow={"resnet_name": "resnet_tiny", "densenet_name": "densenet_tiny"},
        small={"scam_tiny": {"projection_features": 32, "hidden_features": 16, "cut": "14"}},
    ),
    "daffnet": Family(
        head="logits",
        maps={"semantic/stage4", "map/trunk/stage4"},
        vectors={"semantic", "attribute_logits", "morphology_code", "pre_logits"},
        shallow={"semantic_name": "epsanet_tiny", "map_name": "map_tiny"},
        small={"daffnet_tiny": {"semantic_units": 8, "map_gradient": True, "freeze_map": False}},
    ),
    "amnet": Family(
        head="fc",
        maps={"trunk/stage4", "attention/se_fused", "attention/se_ge", "attended"},
        shallow={"trunk_name": "se_resnext_tiny"},
        small={"amnet_tiny": {}},
    ),
    "map": Family(
        head="logits",
        maps={"trunk/stem", "trunk/stage4"},
        vectors={"features", "attribute_logits", "pre_logits"},
        shallow={"trunk_name": "resnet_tiny"},
        small={"map_tiny": {"feature_units": 8}},
    ),
    "alexnet": Family(
        head="classifier",
        maps={"stem", "stage2", "stage5"},
        shallow={"hidden_features": 64},
        small={"alexnet": {"widths": (4, 6, 8, 6, 6), "hidden_features": 16}},
        normed=False,
        size_px=64,
    ),
    "vgg": Family(
        head="classifier",
        maps={"stage1", "stage5"},
        shallow={"stage_sizes": (1, 1, 1, 1, 1), "hidden_features": 64},
        small={"vgg16": {"stage_sizes": (1, 2), "widths": (4, 8), "hidden_features": 16}},
        normed=False,
    ),
    "mobilenet_v1": Family(
        head="classifier",
        maps={"stem", "stage1", "stage5"},
        shallow={"stage_sizes": (1, 1, 1, 1, 1)},
        small={"mobilenet_v1": {"widths": (8, 12), "stage_sizes": (1, 2), "stem_features": 4}},
    ),
    "mobilenet_v2": Family(
        head="classifier",
        maps={"stem", "stage1", "stage2", "widened"},
        shallow={"stages": ((1, 16, 1, 1), (6, 24, 2, 2))},
        small={
            "mobilenet_v2": {
                "stages": ((1, 8, 1, 1), (2, 8, 2, 2)),
                "stem_features": 8,
                "widened_features": 16,
            }
        },
    ),
    "shufflenet_v2": Family(
        head="fc",
        maps={"stem", "stage2", "stage4", "conv5"},
        shallow={"stage_sizes": (2, 1, 1)},
        small={
            "shufflenet_v2_x1_0": {
                "stage_sizes": (2, 1),
                "widths": (8, 12),
                "stem_features": 8,
                "widened_features": 16,
            }
        },
    ),
    "dpn": Family(
        head="classifier",
        maps={"stem", "stage1", "stage4", "normed"},
        shallow={"stage_sizes": (2, 1, 1, 1)},
        small={
            "dpn68": {"stage_sizes": (2, 1), "growths": (4, 4), "residual": 8, "inner": 8, "groups": 4},
        },
    ),
    "inception_v4": Family(
        head="fc",
        maps={"stem", "stage1", "stage2", "stage3", "stage4"},
        shallow={"repeats": (1, 1, 1)},
        small={"inception_v4": {"repeats": (0, 0, 1)}},
        size_px=75,
    ),
    "vit": Family(
        head="classifier",
        maps={"stem", "block1", "block2"},
        shallow={"depth": 2, "image_size_px": 64},
        small={"vit_b_16": {"depth": 2, "features": 8, "heads": 2, "mlp_features": 16, "image_size_px": 48}},
        normed=False,
        size_px=48,
    ),
}

NETWORKS: dict[str, tuple[str, int, int]] = {
    "scam": ("scam", 5, 32_201_801),
    "scam_tiny": ("scam", 5, 667_209),
    "daffnet": ("daffnet", 5, 48_371_930),
    "daffnet_tiny": ("daffnet", 5, 1_212_936),
    "amnet": ("amnet", 4, 26_285_172),
    "amnet_tiny": ("amnet", 5, 1_127_793),
    "map_resnet50": ("map", 5, 25_588_063 + 1001 * 5),
    "map_tiny": ("map", 5, 328_692),
    "resnet18": ("resnet", 1000, 11_689_512),
    "resnet34": ("resnet", 1000, 21_797_672),
    "resnet50": ("resnet", 1000, 25_557_032),
    "resnet101": ("resnet", 1000, 44_549_160),
    "resnet152": ("resnet", 1000, 60_192_808),
    "resnext50_32x4d": ("resnet", 1000, 25_028_904),
    "se_resnet50": ("resnet", 1000, 28_088_024),
    "se_resnext50_32x4d": ("resnet", 1000, 27_559_896),
    "epsanet50": ("resnet", 1000, 22_561_715),
    "epsanet101": ("resnet", 1000, 38_900_279),
    "dist_resnet50": ("resnet", 1000, 25_557_032),
    "resnet_tiny": ("resnet", 5, 308_181),
    "resnet_micro": ("resnet", 5, 309_541),
    "resnet_bottleneck_tiny": ("resnet", 5, 507_029),
    "se_resnext_tiny": ("resnet", 5, 682_833),
    "epsanet_tiny": ("resnet", 5, 605_198),
    "densenet121": ("densenet", 1000, 7_978_856),
    "densenet169": ("densenet", 1000, 14_149_480),
    "densenet201": ("densenet", 1000, 20_013_928),
    "densenet_tiny": ("densenet", 5, 303_425),
    "alexnet": ("alexnet", 1000, 61_100_840),
    "vgg16": ("vgg", 1000, 138_357_544),
    "vgg19": ("vgg", 1000, 143_667_240),
    "mobilenet_v1": ("mobilenet_v1", 1000, 4_231_976),
    "mobilenet_v2": ("mobilenet_v2", 1000, 3_504_872),
    "shufflenet_v2_x1_0": ("shufflenet_v2", 1000, 2_278_604),
    "dpn68": ("dpn", 1000, 12_611_602),
    "dpn92": ("dpn", 1000, 37_668_392),
    "inception_v4": ("inception_v4", 1000, 42_679_816),
    "vit_b_16": ("vit", 1000, 86_567_656),
}
"""Every network: its family, a number of classes, and the parameters with that many; published ones where there are."""


def family_of(name: str) -> Family:
    return FAMILIES[NETWORKS[name][0]]


SMALL: dict[str, Fields] = {
    name: fields for family in FAMILIES.values() for name, fields in family.small.items()
}
