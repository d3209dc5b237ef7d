"""What is known about each data set before its files are seen: where it comes from, how it is laid out, its classes.

Counts are those of the full archive, from the publications; an archive with fewer images is accepted, and the
difference is listed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from wbc_jax.catalog import TASKS

Protocol = Literal["given", "given_test", "random_311", "random_622"]
Framing = Literal["squash", "pad", "crop", "nucleus"]

_FIVE = TASKS["wbc5"].class_names
_SEE_SOURCE = "see the source"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set as documented.

    Attributes:
        title: what it is called in the literature.
        source: address of the archive, or of the publication that links to it.
        citation: key in the builder's CITATIONS.bib.
        licence: terms, as the source states them.
        layout: expected folders and files.
        classes: native output classes, in the order of a model's outputs; empty: the folders decide.
        protocol: how the papers split it.
        framing: recommended way to make its images square.
        folders: places under the raw-data root where its folder may lie, best first; "." is the root itself.
        landmarks: lower-case names of files or folders of which its folder holds at least one; empty: any folder.
        expected: images per class in the full archive, where published.
        expected_total: images in the full archive; None: unknown.
        uncounted_split: a source split that these two counts leave out.
        generated: True when it needs no files.
    """

    title: str
    source: str
    citation: str
    licence: str
    layout: str
    classes: tuple[str, ...]
    protocol: Protocol
    framing: Framing = "squash"
    folders: tuple[str, ...] = (".",)
    landmarks: tuple[str, ...] = ()
    expected: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({}))
    expected_total: int | None = None
    uncounted_split: str = ""
    generated: bool = False


def _counts(**counts: int) -> MappingProxyType[str, int]:
    return MappingProxyType(counts)


_CLASS_FOLDERS = (
    *("basophil", "basophils", "baso", "eosinophil", "eosinophils", "eosino", "eosi"),
    *("lymphocyte", "lymphocytes", "lympho", "lymp", "lym", "monocyte", "monocytes", "mono"),
    *("neutrophil", "neutrophils", "neutro", "neut"),
)
_SPLITS = ("train", "test", "val", "testa", "testb")

DATASETS: dict[str, DatasetInfo] = {
    "synthetic_smear": DatasetInfo(
        title="Synthetic smears, drawn by this package",
        source="https://pypi.org/project/wbc-jax/",
        citation="wbc_jax",
        licence="Apache-2.0",
        layout="nothing to download: the images are drawn when they are first needed",
        classes=_FIVE,
        protocol="given",
        generated=True,
    ),
    "synthetic_smear_plain": DatasetInfo(
        title="Synthetic smears without attributes, drawn by this package",
        source="https://pypi.org/project/wbc-jax/",
        citation="wbc_jax",
        licence="Apache-2.0",
        layout="nothing to download: the images are drawn when they are first needed",
        classes=_FIVE,
        protocol="given",
        generated=True,
    ),
    "pbc": DatasetInfo(
        title="PBC (Barcelona) with WBCAtt's attributes",
        source="https://data.mendeley.com/datasets/snkd93bnjr/1",
        citation="acevedo2020pbc",
        licence="CC BY 4.0; attributes (https://github.com/apple2373/wbcatt) MIT",
        layout="pbc/PBC_dataset_normal_DIB/<class>/*.jpg with eight class folders, and wbcatt/pbc_attr_v1_train.csv, "
        "pbc_attr_v1_val.csv, pbc_attr_v1_test.csv beside pbc/ or in it",
        classes=TASKS["pbc8"].class_names,
        protocol="given",
        folders=("pbc/PBC_dataset_normal_DIB", "PBC_dataset_normal_DIB", ".", "pbc"),
        landmarks=("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"),
        expected=_counts(
            basophil=1218,
            eosinophil=3117,
            lymphocyte=1214,
            monocyte=1420,
            neutrophil=3329,
            erythroblast=1551,
            immature_granulocyte=2895,
            platelet=2348,
        ),
        expected_total=17092,
    ),
    "bccd_kaggle": DatasetInfo(
        title="BCCD, augmented Kaggle release",
        source="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
        citation="mooney2018bloodcells",
        licence="MIT (derived from BCCD)",
        layout="bccd_kaggle/dataset2-master/dataset2-master/images/{TRAIN,TEST,TEST_SIMPLE}/<CLASS>/*.jpeg",
        classes=TASKS["wbc4"].class_names,
        protocol="given_test",
        folders=(
            "bccd_kaggle/dataset2-master/dataset2-master/images",
            "dataset2-master/dataset2-master/images",
            "dataset2-master/images",
            "images",
            ".",
            "bccd_kaggle",
            "bccd_kaggle/images",
        ),
        landmarks=("train", "test"),
        expected=_counts(eosinophil=3133, lymphocyte=3109, monocyte=3102, neutrophil=3171),
        expected_total=12515,
    ),
    "bccd_voc": DatasetInfo(
        title="BCCD, original smear images with boxes",
        source="https://github.com/Shenggan/BCCD_Dataset",
        citation="shenggan2019bccd",
        licence="MIT",
        layout="bccd_voc/BCCD/JPEGImages/*.jpg, BCCD/Annotations/*.xml, and labels.csv (image number, cell class; "
        "from the Kaggle archive's dataset-master) in bccd_voc/, BCCD/ or bccd_kaggle/",
        classes=_FIVE,
        protocol="random_622",
        framing="pad",
        folders=("bccd_voc/BCCD", "BCCD", ".", "bccd_voc"),
        landmarks=("annotations",),
        expected_total=364,
    ),
    "lisc": DatasetInfo(
        title="LISC",
        source="https://users.cecs.anu.edu.au/~hrezatofighi/Data/Leukocyte%20Data.htm",
        citation="rezatofighi2011lisc",
        licence="free for research; cite",
        layout="lisc/{baso,eosi,lymp,mono,neut}/*.bmp (or .jpg); a folder of mixed cells (mixt) is passed over",
        classes=_FIVE,
        protocol="random_311",
        framing="nucleus",
        folders=("lisc", "lisc/Main Dataset", "LISC Database/Main Dataset", "Main Dataset", "."),
        landmarks=("baso", "eosi", "lymp", "mono", "neut"),
        expected=_counts(basophil=53, eosinophil=39, lymphocyte=52, monocyte=48, neutrophil=50),
        expected_total=242,
    ),
    "raabin": DatasetInfo(
        title="Raabin-WBC, double-labelled cropped cells",
        source="https://raabindata.com/free-data/",
        citation="kouzehkanan2022raabin",
        licence=_SEE_SOURCE,
        layout="raabin/{Train,TestA,TestB}/{Basophil,Eosinophil,Lymphocyte,Monocyte,Neutrophil}/*.jpg",
        classes=_FIVE,
        protocol="given_test",
        folders=("raabin", "RaabinWBC", "Raabin-WBC", "."),
        landmarks=("train", "testa", "test-a"),
        expected=_counts(basophil=301, eosinophil=1066, lymphocyte=3461, monocyte=795, neutrophil=8891),
        expected_total=14514,
        uncounted_split="test_b",
    ),
    "ldwbc": DatasetInfo(
        title="LDWBC",
        source="https://doi.org/10.1186/s12859-022-04824-6",
        citation="chen2022scam",
        licence=_SEE_SOURCE,
        layout="ldwbc/<class>/*.jpg with the five cell classes",
        classes=_FIVE,
        protocol="random_311",
        folders=("ldwbc", "LDWBC", "."),
        landmarks=(*_CLASS_FOLDERS, *_SPLITS),
        expected=_counts(basophil=224, eosinophil=539, lymphocyte=10445, monocyte=968, neutrophil=10469),
        expected_total=22645,
    ),
    "labelled": DatasetInfo(
        title="Labelled set of normal and pathological cells (Bodzas et al.)",
        source="https://doi.org/10.1038/s41597-023-02378-7",
        citation="bodzas2023labelled",
        licence=_SEE_SOURCE,
        layout="labelled/<class>/*.bmp with nine cell classes, bands and blasts among them",
        classes=TASKS["labelled9"].class_names,
        protocol="random_622",
        folders=("labelled", "."),
        landmarks=(*_CLASS_FOLDERS, *_SPLITS, "normoblasts", "lymphoblasts", "myeloblasts"),
        expected_total=16027,
    ),
    "wbcs": DatasetInfo(
        title="WBCs, segmented single cells of 112x112 px",
        source="https://doi.org/10.1371/journal.pone.0261848",
        citation="wbcamnet2022",
        licence=_SEE_SOURCE,
        layout="wbcs/<class>/*.jpg with eosinophil, lymphocyte, monocyte, neutrophil",
        classes=TASKS["wbc4"].class_names,
        protocol="random_622",
        folders=("wbcs", "WBCs", "."),
        landmarks=(*_CLASS_FOLDERS, *_SPLITS),
        expected=_counts(eosinophil=171, lymphocyte=1586, monocyte=576, neutrophil=2025),
        expected_total=4358,
    ),
    "jtsc": DatasetInfo(
        title="Jiangxi Tecom single cells (Dataset 1)",
        source="https://github.com/zxaoyou/segmentation_WBC",
        citation="zheng2018jtsc",
        licence="free for research; cite",
        layout="jtsc/Dataset 1/NNN.bmp (or .png) with masks NNN.png or NNN_mask.png, and "
        "jtsc/Class Labels of Dataset 1.csv",
        classes=_FIVE,
        protocol="random_622",
        folders=("jtsc", "segmentation_WBC-master", "."),
        landmarks=("dataset 1",),
        expected=_counts(basophil=1, eosinophil=22, lymphocyte=53, monocyte=48, neutrophil=176),
        expected_total=300,
    ),
    "image_folder": DatasetInfo(
        title="Your own images",
        source="your own folder",
        citation="wbc_jax",
        licence="yours",
        layout="FOLDER/<class>/*.jpg, or FOLDER/{train,val,test}/<class>/*.jpg; the folder names are the classes",
        classes=(),
        protocol="given",
        folders=(".", "image_folder"),
    ),
}
"""By name, as `--data.dataset` takes it."""
