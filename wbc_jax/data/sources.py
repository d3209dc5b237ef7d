"""The data sets of training in three steps, each as a data configuration of its own. [pure]"""

from __future__ import annotations

from dataclasses import replace

from wbc_jax.config import Config, DataConfig


def annotated_data(config: Config) -> DataConfig:
    """Where the true attributes are."""
    return source_data(config, config.morphology.annotated_dataset or config.data.dataset)


def source_data(config: Config, name: str) -> DataConfig:
    """A data set of the mix: `config.data` itself where it is that, otherwise as its own papers divide it.

    `config.data` decides the parts of the data set that the network is scored on, so that whatever it holds out is
    held out in every step.
    """
    data = config.data
    if name == data.dataset:
        return data
    return replace(
        data,
        dataset=name,
        raw_dir=config.morphology.other_raw_dir,
        task="native",
        split="auto",
        split_sha256=None,
        framing="auto",
        balance="none" if name in config.morphology.other_datasets else data.balance,
    )
