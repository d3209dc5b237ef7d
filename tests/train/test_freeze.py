"""Partition of parameters by path prefix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from wbc_jax.train.freeze import merge, partition, restore_frozen


def _params():
    leaf = jnp.arange(3.0)
    return {
        "resnet": {"conv1": {"kernel": leaf}, "conv10": {"kernel": leaf + 1}},
        "densenet": {"conv0": {"kernel": leaf + 2}},
        "head": {"kernel": leaf + 3, "bias": leaf + 4},
    }


def test_split_and_merge_share_every_leaf_and_lose_none():
    params = _params()
    trainable, frozen = partition(params, ("resnet/conv1", "densenet/"))
    assert set(trainable) == {"resnet", "head"}
    assert set(trainable["resnet"]) == {"conv10"}  # a component is matched whole
    assert set(frozen) == {"resnet", "densenet"}
    merged = merge(trainable, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(params), strict=True))


def test_without_prefixes_everything_trains():
    trainable, frozen = partition(_params(), ())
    assert jax.tree.structure(trainable) == jax.tree.structure(_params())
    assert frozen == {}


def test_unknown_prefixes_are_all_named_with_those_that_exist():
    with pytest.raises(ValueError) as caught:
        partition(_params(), ("resnet", "densnet", "res"))
    message = str(caught.value)
    assert "'densnet', 'res'" in message
    assert "densenet, head, resnet" in message
    assert "'resnet'" not in message


def test_unknown_deep_prefix_lists_that_depth():
    with pytest.raises(ValueError, match="densenet/conv0"):
        partition(_params(), ("densenet/conv9",))


def test_nothing_left_to_train_is_refused():
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        partition(_params(), ("resnet", "densenet", "head"))


def test_statistics_under_a_prefix_are_restored_and_others_kept():
    old = {"resnet": {"bn": {"mean": jnp.zeros(2)}}, "head_bn": {"mean": jnp.zeros(2)}}
    new = jax.tree.map(lambda x: x + 1, old)
    kept = restore_frozen(new, old, ("resnet", "no_statistics_here"))
    assert kept["resnet"]["bn"]["mean"].tolist() == [0, 0]
    assert kept["head_bn"]["mean"].tolist() == [1, 1]
