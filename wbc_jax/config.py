"""The typed configuration of a run. Values only: no files, no defaults hidden in code that reads it.

`None` means off. Choices are Literals. A field's docstring is its `--help` text, with the unit and the source
of a value where a paper gives one. `wbc_jax.config_check` finds every problem of a config at once,
`wbc_jax.config_json` writes and reads it as strict JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

TaskName = Literal["native", "wbc5", "pbc8", "wbc4", "labelled9", "mtd3", "intermediate3"]
SplitProtocol = Literal["auto", "given", "given_test", "random_311", "random_622"]

Precision = Literal["auto", "float32", "bfloat16"]
"""Type of activations; auto: bfloat16 on accelerators, float32 on CPU."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    dataset: str = "synthetic_smear"
    """Data set by name; `wbc-jax data list` shows all."""
    raw_dir: str | None = None
    """Folder that holds the original files; None: $WBC_DATA_DIR."""
    cache_dir: str | None = None
    """Folder for prepared stores; None: $WBC_CACHE_DIR, else the user's cache directory."""
    task: TaskName = "native"
    """Output classes: the data set's own, as far as its supplied split covers them (five of PBC's eight), or a task
    of the papers that gathers or leaves out classes."""
    split: SplitProtocol = "auto"
    """given: train/val/test as supplied; given_test: supplied test, the rest 3:1; random_311, random_622:
    stratified shares; auto: the protocol that the papers use for this data set."""
    split_by: Literal["group", "image"] = "group"
    """group: images of one source image, patient or slide stay in one part; image: each goes by itself, so that its
    copies fall on both sides, which flatters the scores; to show by how much."""
    split_seed: int = 0
    """Seed of the random protocols."""
    split_sha256: str | None = None
    """Digest of the split that must be used; another one is refused. None: not pinned."""
    image_size_px: int = 224
    """Side of the square image that the network sees, px."""
    store_size_px: int = 256
    """Side of the square images in the prepared store, px; random crops of `image_size_px` come out of it."""
    framing: Literal["auto", "squash", "pad", "crop", "nucleus"] = "auto"
    """How an image becomes square: squash the long side, pad it, crop the centre, crop around the largest nucleus
    found by its stain (for whole-smear images), or as recommended for the data set."""
    balance: Literal["none", "sampling", "class_weights", "offline"] = "none"
    """Class imbalance: draw classes equally often, weight the loss, or add rotated, flipped and translated
    copies to the training set up to the largest class (SCAM, Methods)."""
    loader: Literal["auto", "resident", "stream"] = "auto"
    """Where the images live: on the devices, streamed from the store, or resident when they fit."""
    stream_workers: int = 0
    """Worker processes of the streaming loader; 0 reads in the main process."""
    max_images_per_class: int | None = None
    """Use at most this many training images of each class; None: all."""
    max_held_out_per_class: int | None = None
    """Score at most this many validation and test images of each class, to try things out; None: all."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str = "scam_tiny"
    """Network by name; `wbc_jax.models.list_models()` lists all."""
    branches: Literal["both", "resnet", "densenet"] = "both"
    """Feature extractors of SCAM (Table 7)."""
    attention: Literal["none", "cam", "sam", "parallel", "csam", "scam", "se", "eca"] = "scam"
    """Attention on SCAM's fused map (Tables 5, 6)."""
    fusion: Literal["add", "concat"] = "add"
    """How SCAM joins its two branches."""
    cut: Literal["last", "14"] = "last"
    """Trunk stage that SCAM taps: the last (7x7 at 224 px), or the 14x14 stage."""
    dropout_rate: float = 0.5
    """Dropout before the last layer, share of units."""
    semantic_name: str | None = None
    """DAFFNet's semantic branch by name (resnet50, epsanet50, vgg19, vit_b_16); None: the network's own."""
    spatial_gate: Literal["none", "block", "last"] | None = None
    """CBAM's spatial gate in each residual block, once behind the last stage, or nowhere; None: the network's own."""
    morphology: Literal["none", "map", "map_mae"] = "map_mae"
    """DAFFNet's attribute branch: none, the predicted attributes, or their code by the encoder (Table 4)."""
    map_code: Literal["argmax", "probabilities"] = "argmax"
    """What DAFFNet's decoder reads of the attributes without encoder: 11 value numbers, or 31 probabilities."""
    mae_padding: Literal["valid", "same"] = "valid"
    """Padding of the attribute encoder's convolutions on its 11x11 map."""
    map_gradient: bool = False
    """Let DAFFNet's class loss reach the attribute predictor."""
    first_features: Literal["pooled", "stem7x7_2048"] = "pooled"
    """First features that WBC-AMNet fuses: its stem, pooled and projected, or a 7x7 convolution to 2048 channels."""
    ge_kind: Literal["theta_minus", "theta", "theta_plus"] = "theta"
    """Kind of WBC-AMNet's gather-excite attention."""
    ge_extent: Literal["global", "2", "4", "8"] = "global"
    """Extent of WBC-AMNet's gather-excite attention, feature-map pixels."""
    use_se: bool = True
    """WBC-AMNet's squeeze-excite branch."""
    use_ge: bool = True
    """WBC-AMNet's gather-excite branch."""
    use_fusion: bool = True
    """WBC-AMNet's fusion of its first features and of the original last ones."""
    input_scaling: Literal["imagenet", "half"] = "imagenet"
    """Range of WBC-AMNet's input: ImageNet's mean and deviation, or grey levels less 127.5 over 127.5."""
    freeze_map: bool = True
    """DAFFNet's attribute predictor runs as in evaluation and is not differentiated."""
    fold_map: bool = False
    """Merge the BatchNorms of DAFFNet's frozen attribute predictor into its convolutions."""
    pretrained: str | None = None
    """Weights to start from: .pth or .safetensors of this network, for WBC-AMNet also of its trunk, in torchvision's or
    timm's names or ours, or a run; None: random."""
    pretrained_resnet: str | None = None
    """ImageNet weights of SCAM's ResNet branch, .pth or .safetensors; None: random (Table 8)."""
    pretrained_densenet: str | None = None
    """ImageNet weights of SCAM's DenseNet branch; None: random (Table 8)."""
    pretrained_semantic: str | None = None
    """ImageNet weights of DAFFNet's semantic branch; None: random."""
    pretrained_map: str | None = None
    """Weights of DAFFNet's attribute predictor: a run directory, or .safetensors or .pth. For an attribute predictor
    alone, and in three steps, ImageNet weights of its ResNet50; None: random."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    name: Literal["radam", "adam", "adamw", "sgd"] = "radam"
    """Optimiser. SCAM uses RAdam, DAFFNet Adam, WBC-AMNet momentum SGD."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    scale_learning_rate: Literal["none", "linear", "sqrt"] = "none"
    """How the learning rate grows with the images of an update: linear (Goyal et al. 2017), or by the square root;
    none: as given."""
    base_batch_size: int = 32
    """Images of an update for which `learning_rate` is meant, where it is scaled."""
    schedule: Literal["constant", "cosine", "piecewise"] = "cosine"
    """Learning rate over time after warm-up."""
    warmup_epochs: float = 0.0
    """Linear warm-up from 0, epochs."""
    piecewise_epochs: tuple[float, ...] = ()
    """Epochs at which the piecewise schedule changes."""
    piecewise_factors: tuple[float, ...] = ()
    """Share of the peak learning rate from each of these epochs on."""
    weight_decay: float = 0.0
    """Decoupled weight decay per step, relative to the learning rate; not applied to norms and biases."""
    momentum: float = 0.9
    """Momentum of sgd; beta1 of the others."""
    clip_norm: float | None = None
    """Clip the global gradient norm to this; None: off."""
    accumulate_steps: int = 1
    """Batches whose gradients are averaged before one update."""
    ema_decay: float | None = None
    """Decay per update of an exponential moving average of the parameters, used for evaluation; None: off."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    enabled: bool = True
    """Augment training images on the device."""
    flip: bool = True
    """Mirror horizontally and vertically, each with probability 0.5."""
    rotation_deg: tuple[float, float] = (-180.0, 180.0)
    """Range of the rotation, degrees, counter-clockwise."""
    translation: float = 0.05
    """Largest shift either way, share of the image side."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Zoom range; above 1 shows a smaller part of the image."""
    crop_area: tuple[float, float] | None = None
    """Random crop, stretched to the whole image: range of its area, share of what evaluation shows; None: off."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the random crop's width over its height."""
    brightness: float = 0.1
    """Largest change either way, share of full scale."""
    contrast: float = 0.1
    """Largest change of contrast either way, share."""
    saturation: float = 0.1
    """Largest change of saturation either way, share."""
    hue: float = 0.02
    """Largest hue shift either way, turns."""
    colour_probability: float = 1.0
    """Share of the images that each of brightness, contrast, saturation and hue changes, drawn apart."""
    exact_share: float = 0.5
    """Share of images moved by quarter turns, mirrors and whole pixels only, as sharp as in evaluation."""
    stain: float = 0.05
    """Spread of the stain jitter in optical-density space (haematoxylin, eosin, rest), share; 0: off."""
    mixup_alpha: float = 0.2
    """Parameter of the Beta distribution of mixup's weight, one draw a batch (SCAM: 0.2); 0: off."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    epochs: int = 12
    """Passes over the training set."""
    batch_size: int = 32
    """Images per step, over all devices."""
    image_size_schedule: tuple[tuple[float, int], ...] = ()
    """Progressive image size, as pairs of epoch and px: up to that epoch images are shrunk to that side, after the
    last pair they have `data.image_size_px`; (): that size throughout. Each size is compiled once."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout."""
    precision: Precision = "auto"
    """Type of activations; auto: bfloat16 on accelerators, float32 on CPU. Parameters, statistics and losses
    stay float32."""
    label_smoothing: float = 0.0
    """Share of each label spread over all classes."""
    attribute_share: float = 0.0
    """Weight of the attributes' loss beside the classes' (DAFFNet, Eq. 1: 0.8); 0: classes only, 1: attributes
    only."""
    freeze: tuple[str, ...] = ()
    """Parts of the network that stay as they are, by parameter path prefix, such as `resnet` or
    `densenet/conv0`."""
    cache_map: bool = False
    """Compute DAFFNet's frozen attribute predictor once for each training image instead of in every step. The same
    without augmentation; with `augment.flip` each step draws one of four mirror images, and what else augmentation
    does, the predictor does not see."""
    freeze_batch_stats: bool = False
    """Use the stored BatchNorm statistics while training (small or foreign data sets)."""
    ghost_batch_size: int | None = None
    """BatchNorm statistics over groups of about so many images of a batch (ghost BatchNorm); None: over all."""
    early_stop_patience_epochs: int | None = None
    """Stop after this many epochs without a better validation score; None: never."""
    skip_nonfinite_updates: bool = False
    """Leave the state as it is when a gradient is not finite, and count it, instead of stopping."""
    execution: Literal["jit", "pmap"] = "jit"
    """How a step runs on several devices."""


@dataclass(frozen=True, kw_only=True)
class MorphologyConfig:
    three_step: bool = False
    """Train in stages: the attribute predictor, pseudo-labels for other data sets, the predictor again on all, and
    then, where the network is a DAFFNet, the network with that predictor (DAFFNet, Fig. 4)."""
    annotated_dataset: str | None = None
    """Data set whose true attributes the predictor learns first; None: `data.dataset`."""
    other_datasets: tuple[str, ...] = ()
    """Data sets whose training images get predicted attributes; none: the predictor is trained once."""
    other_raw_dir: str | None = None
    """Folder that holds the original files of data sets other than `data.dataset`; None: $WBC_DATA_DIR."""
    map_epochs: int | None = None
    """Epochs of the predictor's first training; None: `train.epochs`."""
    mixed_epochs: int | None = None
    """Epochs of its training on all data sets; None: `train.epochs`."""
    mixed_start: Literal["fresh", "map"] = "fresh"
    """Weights that the training on all data sets starts from: those of the first, or the first's result."""
    attribute_share: float = 0.8
    """Weight of the attributes' loss beside the classes' while a DAFFNet's predictor is trained (Eq. 1)."""
    pseudo_threshold: float = 0.0
    """Least probability of a predicted attribute to be learned from; below it counts as not annotated."""
    pseudo_labels: str | None = None
    """A pseudo_labels.csv to train on beside `data.dataset`; the third step sets it by itself."""
    pseudo_weight: float = 1.0
    """Weight of a predicted attribute in the loss, where a true one has 1."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    batch_size: int = 64
    """Images per evaluation step; any value gives the same result."""
    every_epochs: int = 1
    """Validate after this many epochs."""
    select: Literal["accuracy", "macro_f1", "balanced_accuracy", "attribute_accuracy", "loss"] = "accuracy"
    """Validation score that picks the best checkpoint."""
    flip_average: bool = False
    """Average probabilities over the four mirror images."""
    bootstrap_samples: int = 1000
    """Resamples behind the 95 % intervals; 0: no intervals."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    every_steps: int | None = None
    """Save the state after this many steps besides each epoch's end; None: at each epoch's end only."""
    keep: int = 2
    """Newest checkpoints kept besides the best."""


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    every_steps: int = 20
    """Read losses back and log them after this many steps."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    num_devices: int | None = None
    """Devices to use; None: all, of all processes."""
    cluster: Literal["auto", "off", "slurm", "ompi", "mpi4py", "k8s", "tpu"] = "auto"
    """Launcher whose processes form one run; auto: torchrun, SLURM, Open MPI or a TPU pod where their variables are
    set; off: this process is alone."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where no launcher tells it; needs num_processes and process_id."""
    num_processes: int | None = None
    """Processes of the run, with `coordinator`."""
    process_id: int | None = None
    """Number of this process, from 0, with `coordinator`."""
    compile_cache: bool = True
    """Keep compiled programs in the cache directory, so that the next start is faster; accelerators only."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run, complete."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    morphology: MorphologyConfig = field(default_factory=MorphologyConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
