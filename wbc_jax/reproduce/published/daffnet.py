"""DAFFNet: its tables in percent, the shifted columns of Tables 5 and 6 under their right names. [pure]"""

from __future__ import annotations

ARMS = ("ResNet50", "+ EPSA", "+ SA", "+ MAP", "+ MAE (DAFFNet)")
SCORES = ("weighted_precision", "weighted_recall", "weighted_f1", "accuracy", "hard_auc_weighted")

ABLATION: dict[str, tuple[tuple[float, ...], ...]] = {
    "PBC": (
        (98.63, 98.62, 98.62, 98.62, 99.19),
        (98.66, 98.65, 98.65, 98.65, 99.22),
        (98.68, 98.68, 98.68, 98.68, 99.24),
        (98.74, 98.74, 98.74, 98.74, 99.26),
        (98.77, 98.77, 98.77, 98.77, 99.28),
    ),
    "LISC": (
        (88.90, 87.23, 86.90, 87.23, 92.19),
        (85.88, 85.11, 84.99, 85.11, 91.01),
        (88.90, 87.23, 86.90, 87.23, 92.19),
        (88.29, 89.36, 88.37, 89.36, 93.42),
        (92.49, 91.30, 90.92, 91.30, 94.52),
    ),
    "Raabin": (
        (97.31, 97.14, 97.16, 97.14, 98.04),
        (97.49, 97.42, 97.38, 97.42, 97.99),
        (97.79, 97.76, 97.77, 97.76, 98.10),
        (98.09, 98.09, 98.05, 98.09, 98.58),
        (98.41, 98.36, 98.38, 98.36, 98.91),
    ),
    "BCCD": (
        (97.87, 97.86, 97.86, 97.86, 98.66),
        (99.15, 99.14, 99.14, 99.14, 99.46),
        (99.44, 99.43, 99.43, 99.43, 99.64),
        (99.58, 99.57, 99.57, 99.57, 99.73),
        (99.72, 99.71, 99.71, 99.71, 99.82),
    ),
    "LDWBC": (
        (97.92, 97.81, 97.85, 97.81, 98.48),
        (97.99, 97.99, 97.97, 97.99, 98.40),
        (97.81, 97.88, 97.83, 97.88, 98.32),
        (98.38, 98.28, 98.31, 98.28, 98.83),
        (98.44, 98.45, 98.44, 98.45, 98.82),
    ),
    "Labelled": (
        (96.82, 96.84, 96.79, 96.84, 98.15),
        (98.21, 98.18, 98.00, 98.18, 98.91),
        (98.74, 98.72, 98.64, 98.72, 99.22),
        (98.77, 98.82, 98.76, 98.82, 99.31),
        (98.81, 98.85, 98.81, 98.85, 99.32),
    ),
}
"""Tables 2 and 4: data set -> one row an arm, in the order of ARMS, columns in the order of SCORES."""

TEST_IMAGES: dict[str, int] = {
    "PBC": 3_418,
    "LISC": 47,
    "Raabin": 2_903,
    "BCCD": 700,
    "LDWBC": 4_529,
    "Labelled": 3_205,
}
"""Images of the test sets, a fifth of each data set (6:2:2); LISC and BCCD by the steps of the printed accuracies."""

QUOTED: dict[str, dict[str, dict[str, float]]] = {
    "PBC": {
        "[27] 2022": {"weighted_precision": 97.81, "weighted_recall": 98.10, "weighted_f1": 97.95},
        "[28] 2023": {"weighted_precision": 85.10, "accuracy": 90.10},
        "[29] 2024": {
            "weighted_precision": 95.64,
            "weighted_recall": 95.77,
            "weighted_f1": 95.80,
            "accuracy": 96.32,
        },
    },
    "LISC": {
        "[30] 2021": {"accuracy": 88.21},
        "[31] 2022": {"accuracy": 84.52},
        "[32] 2024": {"accuracy": 76.49},
    },
    "Raabin": {
        "[33] 2021": {"accuracy": 94.65},
        "[34] 2021": {"weighted_precision": 95.65, "weighted_f1": 96.77, "accuracy": 97.69},
        "[12] 2022": {"weighted_precision": 90.43, "weighted_f1": 91.89, "accuracy": 95.17},
    },
    "BCCD": {
        "[16] 2022": {
            "weighted_precision": 93.0,
            "weighted_recall": 93.0,
            "weighted_f1": 93.50,
            "accuracy": 93.22,
        },
        "[35] 2023": {
            "weighted_precision": 99.22,
            "weighted_recall": 99.10,
            "weighted_f1": 99.18,
            "accuracy": 99.19,
        },
        "[36] 2023": {"accuracy": 98.69},
    },
    "LDWBC": {
        "[37] 2022 (SCAM)": {
            "weighted_precision": 93.51,
            "weighted_recall": 95.06,
            "weighted_f1": 94.17,
            "accuracy": 98.06,
        },
    },
    "Labelled": {"[26] 2023": {"accuracy": 94.49}},
}
"""Table 3: data set -> publication -> what it quotes; the paper does not say how each averages over classes."""

ATTRIBUTE_SCORES = ("precision", "recall", "specificity", "f1", "accuracy", "hard_auc")

ATTRIBUTES: dict[str, tuple[float, ...]] = {
    "cell_size": (81.19, 77.45, 82.37, 79.28, 79.93, 79.91),
    "cell_shape": (97.11, 83.71, 99.32, 89.91, 95.97, 91.51),
    "nucleus_shape": (81.75, 81.83, 95.95, 81.68, 81.83, 88.89),
    "nuclear_cytoplasmic_ratio": (91.60, 97.96, 98.79, 94.67, 98.69, 98.37),
    "chromatin_density": (73.43, 83.52, 97.07, 78.15, 95.87, 90.29),
    "cytoplasm_vacuole": (93.48, 79.63, 99.53, 86.00, 97.96, 89.58),
    "cytoplasm_texture": (89.17, 93.48, 97.14, 91.27, 96.40, 95.31),
    "cytoplasm_colour": (92.60, 88.24, 97.77, 85.82, 88.24, 93.00),
    "granule_type": (68.55, 67.83, 88.97, 67.59, 67.83, 78.40),
    "granule_colour": (73.06, 72.59, 89.41, 72.63, 72.59, 81.00),
    "granularity": (99.24, 100.00, 99.74, 99.62, 99.81, 99.87),
}
"""Table 5, DSL + SSL: attribute -> columns in the order of ATTRIBUTE_SCORES."""

STRATEGY_SCORES = (*ATTRIBUTE_SCORES, "subset_accuracy", "hamming_loss", "jaccard")

STRATEGIES: dict[str, tuple[float, ...]] = {
    "plain": (79.80, 78.09, 92.41, 78.26, 84.00, 85.25, 26.43, 14.67, 70.41),
    "DSL": (83.11, 81.94, 94.29, 81.92, 87.05, 88.12, 29.54, 11.87, 76.09),
    "DSL + SSL": (85.56, 84.20, 95.10, 84.24, 88.65, 89.65, 35.37, 10.41, 80.05),
}
"""Table 6 (its first row is printed as "self-supervised"); the last row's first six are Table 5's overall row."""

MAP_TEST_IMAGES = 2_058
"""20 % of WBCAtt's 10,298."""
