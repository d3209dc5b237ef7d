"""SCAM, BMC Bioinformatics 23:282 (2022). Its tables are images; these are the figures given in text. [pure]"""

from __future__ import annotations

LDWBC_TEST = {
    "average_precision_rate": 93.51,
    "average_recall": 95.06,
    "macro_f1": 94.17,
    "accuracy": 98.06,
}
"""SCAM on LDWBC's test set, as DAFFNet's Table 3 quotes it."""

LDWBC_TEST_IMAGES = 22_645 // 5
"""A fifth of LDWBC (3:1:1); the exact count stands in Table 2."""

BEST_VALIDATION = {"0": 97.37, "0.2": 97.62}
"""Best validation accuracy on LDWBC by mixup's alpha (Figure 6)."""

TRAINING = {"0": 100.0, "0.2": 98.53}
"""Training accuracy at the end by alpha; with mixup on mixed images (Figure 6)."""
