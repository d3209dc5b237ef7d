"""WBC-AMNet, PLoS ONE 17(1):e0261848 (2022). [pure]

Accuracy of a class is its recall. The printed specificity is left out: it mostly repeats the recall, with rows rotated
in Table 4.
"""

from __future__ import annotations

BCCD_TEST_IMAGES = 2_487
WBCS_TRI_TEST_IMAGES = 870
WBCS_QUAD_TEST_IMAGES = 872

SEARCH = {
    (15, 32): (90.71, 90.74, 90.70),
    (20, 16): (94.93, 95.03, 94.93),
    (20, 32): (95.66, 95.67, 95.66),
    (25, 32): (95.13, 95.14, 95.11),
    (30, 32): (93.81, 93.97, 93.69),
}
"""Table 3, BCCD-3: (epochs, batch) -> accuracy, precision, F1, support-weighted."""

BCCD_TRI_CLASSES = {
    "lymphocyte": (100.00, 100.00, 100.00),
    "mtd": (95.50, 95.81, 95.65),
    "eosinophil": (91.65, 91.07, 91.36),
}
"""Table 4: class -> recall, precision, F1."""

BCCD_QUAD_CLASSES = {
    "eosinophil": (82.50, 91.46, 86.75),
    "neutrophil": (93.43, 73.70, 82.40),
    "monocyte": (84.03, 98.67, 90.77),
    "lymphocyte": (96.94, 99.17, 98.04),
}
"""Table 6."""

BCCD_TRI_NETWORKS = {
    "VGG": (50.02, 16.67, 22.23),
    "ShuffleNetV2": (79.41, 81.81, 80.99),
    "DPN": (87.45, 87.82, 88.15),
    "InceptionV4": (90.59, 93.48, 90.27),
    "AlexNet": (93.00, 93.85, 92.55),
    "DistResNet": (94.29, 95.74, 93.93),
    "MobileNetV1": (94.17, 94.63, 94.07),
    "MobileNetV2": (94.45, 94.41, 94.37),
    "ResNet": (93.12, 93.32, 93.17),
    "SE-ResNeXt": (93.93, 94.07, 93.97),
    "WBC-AMNet": (95.66, 95.67, 95.66),
}
"""Table 5: network -> accuracy, precision, F1."""

BCCD_QUAD_NETWORKS = {
    "VGG": (86.81, 88.49, 87.03),
    "ShuffleNetV2": (83.43, 85.80, 83.53),
    "DPN": (84.84, 87.50, 85.28),
    "InceptionV4": (87.94, 90.41, 88.23),
    "AlexNet": (82.31, 86.12, 82.70),
    "DistResNet": (87.74, 89.95, 88.02),
    "MobileNetV1": (86.13, 88.96, 86.48),
    "MobileNetV2": (88.82, 90.85, 89.02),
    "ResNet": (86.65, 88.08, 86.81),
    "SE-ResNeXt": (87.78, 89.43, 87.91),
    "WBC-AMNet": (89.22, 90.72, 89.47),
}
"""Table 7."""

WBCS_TRI = {
    "MobileNetV2": {
        "intermediate": (84.46, 89.29, 86.81),
        "lymphocyte": (94.75, 96.78, 95.71),
        "neutrophil": (99.26, 95.70, 97.45),
        "total": (95.06, 95.00, 95.00),
    },
    "ResNet": {
        "intermediate": (77.70, 95.04, 85.50),
        "lymphocyte": (95.91, 96.83, 96.37),
        "neutrophil": (99.51, 92.63, 95.94),
        "total": (94.48, 94.58, 94.32),
    },
    "SE-ResNeXt": {
        "intermediate": (85.14, 97.67, 90.97),
        "lymphocyte": (98.74, 95.15, 96.91),
        "neutrophil": (99.75, 98.05, 98.90),
        "total": (96.90, 96.93, 96.82),
    },
    "WBC-AMNet": {
        "intermediate": (93.24, 97.18, 95.17),
        "lymphocyte": (99.37, 97.23, 98.29),
        "neutrophil": (99.01, 99.26, 99.13),
        "total": (98.16, 98.16, 98.15),
    },
}
"""Table 8: network -> class -> recall, precision, F1; total: accuracy and weighted means."""

WBCS_QUAD = {
    "MobileNetV2": {
        "eosinophil": (50.00, 77.27, 60.71),
        "neutrophil": (98.02, 95.66, 96.83),
        "monocyte": (69.82, 84.38, 76.42),
        "lymphocyte": (97.79, 91.42, 94.50),
        "total": (92.31, 91.90, 91.86),
    },
    "ResNet": {
        "eosinophil": (61.76, 91.30, 73.68),
        "neutrophil": (98.77, 95.47, 97.09),
        "monocyte": (84.48, 87.50, 85.96),
        "lymphocyte": (96.20, 95.90, 96.05),
        "total": (94.49, 94.40, 94.32),
    },
    "SE-ResNeXt": {
        "eosinophil": (97.06, 97.06, 97.06),
        "neutrophil": (99.75, 98.78, 99.26),
        "monocyte": (85.34, 92.52, 88.79),
        "lymphocyte": (97.79, 96.26, 97.02),
        "total": (97.02, 96.96, 96.97),
    },
    "WBC-AMNet": {
        "eosinophil": (97.06, 97.06, 97.06),
        "neutrophil": (99.75, 99.02, 99.38),
        "monocyte": (95.69, 97.37, 96.52),
        "lymphocyte": (97.78, 98.10, 97.94),
        "total": (98.39, 98.39, 98.39),
    },
}
"""Table 9."""

AREAS = {
    "bccd_tri": {"WBC-AMNet": 99.0},
    "wbcs_tri": {"WBC-AMNet": 99.0, "MobileNetV2": 98.0, "ResNet": 99.0, "SE-ResNeXt": 99.0},
    "wbcs_quad": {"WBC-AMNet": 100.0, "MobileNetV2": 98.0, "ResNet": 99.0, "SE-ResNeXt": 100.0},
}
"""Macro AUC of Figures 4, 8, 9, 11, 12, percent, two digits as printed."""
