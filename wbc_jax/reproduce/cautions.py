"""What a reader must know before comparing with a printed number, a sentence or two each. [pure]"""

from __future__ import annotations

CAUTIONS: dict[str, str] = {
    "scam_quoted": (
        "SCAM's tables are printed as images; the published values here are those that DAFFNet's Table 3 quotes for "
        "SCAM on LDWBC. The other arms have none to compare with."
    ),
    "af1": (
        "The printed formula of AF1 is the harmonic mean of AP and AR, which the quoted AP and AR would make 94.28; "
        "the quoted 94.17 fits the mean of class F1 better. Both are given, and the published value stands beside "
        "the latter."
    ),
    "one_set": "One test set and one split: arms that differ by less than the interval are not told apart.",
    "settings_inferred": (
        "Learning rate, batch size and epochs stand in the paper's table image, not in its text; the values here are "
        "what this package used."
    ),
    "settings_template": (
        "Optimiser, learning rate and ranges of the augmentation are not stated; the values here are the usual ones of "
        "the template that the paper's wording matches."
    ),
    "networks_inferred": (
        "The five other networks are named only in the paper's table images; the set here is our reading."
    ),
    "mixed_training_accuracy": (
        "With mixup the training accuracy is that on mixed images, against the class with the larger share: it stays "
        "below the accuracy on plain images and cannot be compared with the curve without mixup."
    ),
    "bccd_leak": (
        "The augmented BCCD has about 12,500 images made from a few hundred originals, so copies of one original lie "
        "on both sides of a random split, and in part of the supplied one: accuracies on it are flattered."
    ),
    "bccd_other_set": (
        "The paper's BCCD is a set of 3,500 images of 84 px, not the augmented release that is used here: these rows "
        "are not comparable with the printed ones."
    ),
    "shifted_columns": (
        "The printed columns Spec and F1 are shifted: Spec is the harmonic mean of precision and recall in all seven "
        "binary rows, and F1 is the specificity. The published values here stand under their right names."
    ),
    "hard_auc": (
        'The printed AUC is (recall + specificity) / 2, the balanced accuracy of hard decisions, not an area under a '
        "curve; ours in that column is computed the same way. The area from probabilities is in each run's metrics."
    ),
    "hamming_jaccard": (
        "By its own definition the Hamming loss must be 100 - 88.65 = 11.35 where 10.41 is printed, and with 10.41 the "
        "Jaccard score would be at least 81.14 where 80.05 is printed. Ours follow the definitions."
    ),
    "class_only": (
        "Knowing the cell class and nothing else of an image already gives 89.16 % mean attribute accuracy on "
        "WBCAtt's official test; the paper's best predictor has 88.65, and the baseline of WBCAtt's authors 94.09. "
        "Compare with the class-only figure that stands beside ours."
    ),
    "lisc_steps": (
        "LISC's test set has 47 images: 87.23 is 41 of 47, 85.11 is 40, 89.36 is 42, and the final 91.30 is 42 of 46, "
        "the same 42 hits with one image fewer."
    ),
    "pbc_span": "On PBC the whole ablation spans 0.15 points, five images of the test set.",
    "raabin_counts": (
        "Raabin's test counts in the paper's text add up to 4,496, though a fifth of its 14,514 images is 2,903."
    ),
    "quoted_rows": (
        "The rows of other publications are quoted by the paper, on their own splits and test sets; nothing here "
        "repeats them."
    ),
    "specificity": (
        "The printed specificity mostly repeats the recall, rotated by one row in Table 4, and is left out; ours is "
        "TN / (TN + FP), in each run's metrics."
    ),
    "mixed_averages": (
        "Printed averages are mixed: the totals of WBC-AMNet are weighted by support, VGG's row on BCCD-3 is a plain "
        "mean of a network that calls every image MTD."
    ),
    "test_selection": (
        "Epochs and batch size were chosen on the test images, so the printed 95.66 is optimistic; ours are chosen on "
        "validation images."
    ),
    "wbcs_steps": (
        "WBCs-3 has 870 test images and WBCs-4 872, two different random splits; eosinophils are 34 images, so one "
        "error is 2.9 points."
    ),
    "backbone_arms": (
        "Rows marked * are ours: the paper mentions the comparison of backbones without numbers."
    ),
    "own_arms": "Rows marked * are ours: the paper has no ablation table.",
    "attribute_noise": (
        "WBCAtt is noisy: a second annotator agrees with the first in 96.11 % of labels on 1,000 images."
    ),
}  # fmt: skip

SMOKE = (
    "**Smoke budget: the machinery is tested, not the method.** The papers' networks run in small forms, all other "
    "networks are stood for by one small ResNet, every mixup α above 0 by 0.2; of each class at most "
    "{images_per_class} training, {held_out_per_class} validation and {held_out_per_class} test images, "
    "{image_size_px} px, one epoch, so rows share runs. What stands here as ours means nothing beside the published "
    "figures."
)
STAND_IN = "{absent} is not here, so `{stand_in}` stands in for it: its figures are not about {absent}."
