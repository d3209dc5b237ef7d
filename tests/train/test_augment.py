"""Augmentation against scipy, NumPy and closed forms; identities, ranges, determinism, mixup."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from wbc_jax.config import AugmentConfig
from wbc_jax.train import augment as aug
from wbc_jax.train import colour, geometry

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
KEY = jax.random.key(0)
FULL: dict[str, Any] = {
    "flip": True,
    "rotation_deg": (-180.0, 180.0),
    "translation": 0.1,
    "scale": (0.8, 1.25),
    "brightness": 0.1,
    "contrast": 0.1,
    "saturation": 0.2,
    "hue": 0.05,
    "stain": 0.1,
}


def noise(count: int, side: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def denormalised(images: jax.Array) -> np.ndarray:
    return np.asarray(images) * STD + MEAN


# Compiled whole: operation by operation the tests would spend their time compiling each one.
augment = jax.jit(aug.augment, static_argnums=2)
center = jax.jit(aug.center, static_argnums=1)
mixup = jax.jit(aug.mixup, static_argnums=3)
affine_sample = jax.jit(geometry.affine_sample, static_argnums=2)
colour_matrix = jax.jit(colour.colour_matrix)
stain_matrix = jax.jit(colour.stain_matrix)
apply_affine = jax.jit(colour.apply_affine)


@functools.partial(jax.jit, static_argnames="base_scale")
def jitted_map(angle_rad: Any, zoom: Any, shift_px: Any, mirror: Any, base_scale: float) -> jax.Array:
    return geometry.inverse_affine(angle_rad, zoom, shift_px, mirror, base_scale=base_scale)


def inverse_map(
    count: int,
    angle_rad: float = 0.0,
    zoom: float = 1.0,
    shift_px: tuple[float, float] = (0.0, 0.0),
    mirror: tuple[float, float] = (1.0, 1.0),
    base_scale: float = 1.0,
) -> jax.Array:
    """The same map for `count` images; by default one that changes nothing."""
    each = [
        np.repeat(np.asarray([v], np.float32), count, axis=0) for v in (angle_rad, zoom, shift_px, mirror)
    ]
    return jitted_map(*each, base_scale=base_scale)


# Geometry


@pytest.mark.parametrize(("store_px", "image_px"), [(10, 10), (12, 8), (11, 8), (8, 11)])
def test_no_change_is_exactly_the_evaluation_view(store_px: int, image_px: int) -> None:
    images = noise(3, store_px)
    spec = aug.AugmentSpec(image_size_px=image_px)
    np.testing.assert_array_equal(augment(KEY, jnp.asarray(images), spec), center(images, image_px))


@pytest.mark.parametrize(("store_px", "image_px"), [(10, 10), (12, 8), (11, 8)])
def test_centre_crop_is_the_plain_slice(store_px: int, image_px: int) -> None:
    images = noise(2, store_px)
    start = (store_px - image_px) // 2
    plain = images[:, start : start + image_px, start : start + image_px] / np.float32(255)
    np.testing.assert_allclose(center(images, image_px), (plain - MEAN) / STD, atol=1e-6)
    # The interpolating path with nothing to do must not blur either, odd margins included.
    spec = aug.AugmentSpec(image_size_px=image_px, rotation_deg=(1e-9, 1e-9))
    np.testing.assert_allclose(denormalised(augment(KEY, jnp.asarray(images), spec)), plain, atol=1e-5)


def test_small_stores_are_enlarged_alike_in_training_and_evaluation() -> None:
    images = noise(2, 8)
    spec = aug.AugmentSpec(image_size_px=16, rotation_deg=(1e-9, 1e-9))
    trained, evaluated = (denormalised(x) for x in (augment(KEY, images, spec), center(images, 16)))
    np.testing.assert_allclose(trained, evaluated, atol=1e-5)
    large = torch.nn.functional.interpolate(
        torch.tensor(images[:1] / 255.0).permute(0, 3, 1, 2),
        size=(16, 16),
        mode="bicubic",
        align_corners=False,
    )
    expected = large.permute(0, 2, 3, 1).numpy().clip(0, 1)
    # torch repeats the border where we mirror it, so only the inside is the same
    np.testing.assert_allclose(evaluated[:1, 4:-4, 4:-4], expected[:, 4:-4, 4:-4], atol=1e-5)


@pytest.mark.parametrize(("side", "size_px"), [(9, 7), (8, 8), (6, 10)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_affine_sample_equals_torch(side: int, size_px: int, dtype: type) -> None:
    rng = np.random.default_rng(1)
    images = noise(4, side) if dtype is np.uint8 else rng.normal(size=(4, side, side, 3)).astype(np.float32)
    # Far out of the image on purpose: several mirrors deep.
    matrices = rng.normal(0.0, [1.5, 1.5, 4.0], (4, 2, 3)).astype(np.float32)
    actual = np.asarray(affine_sample(jnp.asarray(images), jnp.asarray(matrices), size_px))
    along = np.arange(size_px) - (size_px - 1) / 2
    y, x = np.meshgrid(along, along, indexing="ij")
    where = np.einsum("bij,jyx->byxi", matrices.astype(np.float64), np.stack([y, x, np.ones_like(y)]))
    grid = torch.tensor(where[..., ::-1] / ((side - 1) / 2))  # (x, y) in [-1, 1] over pixel centres
    planes = torch.tensor(images.astype(np.float64) / (255.0 if dtype is np.uint8 else 1.0)).permute(
        0, 3, 1, 2
    )
    expected = torch.nn.functional.grid_sample(
        planes, grid, mode="bicubic", padding_mode="reflection", align_corners=True
    )
    expected = expected.permute(0, 2, 3, 1).numpy()
    if dtype is np.uint8:
        expected = expected.clip(0.0, 1.0)
    np.testing.assert_allclose(actual, expected, atol=5e-5)


def test_image_of_one_pixel_is_constant() -> None:
    images = noise(2, 1)
    sampled = affine_sample(jnp.asarray(images), inverse_map(2, angle_rad=0.3, shift_px=(1.0, 0.5)), 3)
    np.testing.assert_allclose(sampled, np.broadcast_to(images / 255.0, (2, 3, 3, 3)), atol=1e-6)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_rot90(side: int, quarters: int) -> None:
    images = noise(2, side)
    maps = inverse_map(2, angle_rad=quarters * np.pi / 2)
    expected = np.rot90(images, quarters, axes=(1, 2)) / 255.0
    np.testing.assert_allclose(affine_sample(jnp.asarray(images), maps, side), expected, atol=1e-5)


@pytest.mark.parametrize(("mirror", "axes"), [((-1.0, 1.0), 1), ((1.0, -1.0), 2), ((-1.0, -1.0), (1, 2))])
def test_mirrors(mirror: tuple[float, float], axes: int | tuple[int, int]) -> None:
    images = noise(2, 6)
    maps = inverse_map(2, mirror=mirror)
    expected = np.flip(images, axes) / 255.0
    np.testing.assert_allclose(affine_sample(jnp.asarray(images), maps, 6), expected, atol=1e-6)


def test_shift_moves_content_down_and_right() -> None:
    images = noise(1, 8)
    maps = inverse_map(1, shift_px=(2.0, -1.0))
    shifted = affine_sample(jnp.asarray(images), maps, 8)
    np.testing.assert_allclose(shifted[0, 2:, :-1], images[0, :-2, 1:] / 255.0, atol=1e-6)


def test_zoom_enlarges_about_the_centre() -> None:
    images = noise(1, 9)
    maps = inverse_map(1, zoom=2.0)
    zoomed = affine_sample(jnp.asarray(images), maps, 9)
    np.testing.assert_allclose(zoomed[0, ::2, ::2], images[0, 2:7, 2:7] / 255.0, atol=1e-6)


def test_map_inverts_mirror_turn_zoom_shift_in_that_order() -> None:
    angle, zoom, shift, mirror = 0.7, 1.3, (2.0, -3.0), (-1.0, 1.0)
    maps = inverse_map(1, angle, zoom, shift, mirror, base_scale=0.5)
    source = np.array([1.5, -2.5])
    # Forward, on (y, x) with y down; a turn against the clock as displayed takes right (0, 1) to up (-1, 0).
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    output = zoom / 0.5 * turn @ (np.array(mirror) * source) + np.array(shift)
    np.testing.assert_allclose(np.asarray(maps[0]) @ np.append(output, 1.0), source, atol=1e-5)


def test_pure_shift_stays_on_whole_pixels() -> None:
    images = noise(16, 20)
    spec = aug.AugmentSpec(image_size_px=11, translation=0.3)  # an odd margin
    shifted = denormalised(augment(KEY, images, spec))
    offsets = set()
    for image, one in zip(images / 255.0, shifted, strict=True):
        errors = {
            (i, j): np.abs(image[i : i + 11, j : j + 11] - one).max() for i in range(10) for j in range(10)
        }
        best = min(errors, key=lambda place: errors[place])
        assert errors[best] < 1e-5
        offsets.add(best)
    assert len(offsets) > 8
    assert max(abs(i - 4) for offset in offsets for i in offset) == 3


def test_flips_alone_give_the_four_mirror_images() -> None:
    image = noise(1, 6)
    spec = aug.AugmentSpec(image_size_px=6, flip=True)
    flipped = denormalised(augment(KEY, image.repeat(64, axis=0), spec))
    views = [image[0], image[0][::-1], image[0][:, ::-1], image[0][::-1, ::-1]]
    found = [[np.allclose(one, view / 255.0, atol=1e-5) for view in views] for one in flipped]
    counts = np.sum(found, axis=0)
    assert counts.sum() == 64
    assert counts.min() >= 6


# Colour


def columns(images: Any) -> jax.Array:
    return jnp.asarray(images.reshape(len(images), -1, 3) / 255.0, jnp.float32)


def test_stain_round_trip_and_white() -> None:
    rgb = columns(noise(2, 6))
    np.testing.assert_allclose(colour.from_optical_density(colour.optical_density(rgb)), rgb, atol=1e-6)
    np.testing.assert_allclose(colour.optical_density(jnp.ones(3)), np.zeros(3), atol=1e-7)
    matrix, offset = stain_matrix(jnp.ones((2, 3)), jnp.zeros((2, 3)))
    np.testing.assert_allclose(matrix, np.stack([np.eye(3)] * 2), atol=1e-6)
    np.testing.assert_array_equal(offset, np.zeros((2, 3)))


def test_stains_are_those_of_scikit_image() -> None:
    skimage_color = pytest.importorskip("skimage.color")
    expected = skimage_color.rgb_from_hed[:2]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(colour.STAIN_TO_OD.T[:2], expected, atol=1e-6)
    np.testing.assert_allclose(colour.STAIN_TO_OD.T[2] @ colour.STAIN_TO_OD[:, :2], 0.0, atol=1e-6)
    np.testing.assert_allclose(colour.OD_TO_STAIN @ colour.STAIN_TO_OD, np.eye(3), atol=1e-6)


def test_stain_jitter_equals_unmixing_changing_and_mixing() -> None:
    rng = np.random.default_rng(2)
    factors, shifts = 1 + rng.uniform(-0.3, 0.3, (2, 3)), rng.uniform(-0.1, 0.1, (2, 3))
    density = rng.uniform(0, 2, (2, 5, 3))
    mixed = np.empty_like(density)
    for b in range(2):
        amounts = np.linalg.solve(colour.STAIN_TO_OD.astype(np.float64), density[b].T).T
        mixed[b] = (amounts * factors[b] + shifts[b]) @ colour.STAIN_TO_OD.T.astype(np.float64)
    matrix, offset = stain_matrix(jnp.asarray(factors, jnp.float32), jnp.asarray(shifts, jnp.float32))
    actual = apply_affine(jnp.asarray(density, jnp.float32), matrix, offset)
    np.testing.assert_allclose(actual, mixed, atol=1e-5)


def test_colour_changes_one_by_one() -> None:
    rgb = columns(noise(1, 5))
    grey = np.asarray(rgb) @ np.array([0.299, 0.587, 0.114])
    zero, one = jnp.zeros(1), jnp.ones(1)

    def changed(brightness=zero, contrast=one, saturation=one, hue=zero) -> np.ndarray:
        return np.asarray(apply_affine(rgb, *colour_matrix(brightness, contrast, saturation, hue)))

    np.testing.assert_allclose(changed(), rgb, atol=1e-5)
    np.testing.assert_allclose(changed(brightness=zero + 0.2), rgb + 0.2, atol=1e-5)
    np.testing.assert_allclose(changed(contrast=zero + 1.5), (rgb - 0.5) * 1.5 + 0.5, atol=1e-5)
    np.testing.assert_allclose(changed(saturation=zero), np.repeat(grey[..., None], 3, axis=-1), atol=2e-3)
    np.testing.assert_allclose(changed(saturation=zero + 1.4), 1.4 * rgb - 0.4 * grey[..., None], atol=2e-3)
    np.testing.assert_allclose(changed(hue=one), rgb, atol=1e-5)  # one whole turn
    turned = changed(hue=zero + 0.1)
    assert np.abs(turned - np.asarray(rgb)).max() > 0.05
    np.testing.assert_allclose(turned @ np.array([0.299, 0.587, 0.114]), grey, atol=2e-3)
    back = apply_affine(jnp.asarray(turned), *colour_matrix(zero, one, one, zero - 0.1))
    np.testing.assert_allclose(back, rgb, atol=1e-5)


def test_apply_affine_is_the_matrix_product() -> None:
    rng = np.random.default_rng(3)
    colours, matrix, offset = rng.normal(size=(2, 7, 3)), rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3))
    expected = np.einsum("bij,bpj->bpi", matrix, colours) + offset[:, None]
    actual = apply_affine(*(jnp.asarray(x, jnp.float32) for x in (colours, matrix, offset)))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


# The whole


def test_all_changes_equal_the_parts_in_order() -> None:
    images, spec = noise(3, 12), aug.AugmentSpec(image_size_px=9, **FULL)
    drawn = aug.draw(KEY, 3, spec)
    shift = drawn.shift_px + 0.5  # an odd margin
    maps = jitted_map(drawn.angle_rad, drawn.zoom, shift, drawn.mirror, base_scale=1.0)
    rgb = np.asarray(affine_sample(jnp.asarray(images), maps, 9), np.float64).reshape(3, -1, 3)
    od_matrix, od_offset = (
        np.asarray(x, np.float64) for x in stain_matrix(drawn.stain_factors, drawn.stain_shifts)
    )
    density = -np.log(rgb * 255 / 256 + 1 / 256)
    density = np.einsum("bij,bpj->bpi", od_matrix, density) + od_offset[:, None]
    rgb = (np.exp(-density) - 1 / 256) * 256 / 255
    matrix, offset = colour_matrix(drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue_turns)
    rgb = np.einsum("bij,bpj->bpi", matrix, rgb) + np.asarray(offset)[:, None]
    expected = (np.clip(rgb, 0, 1).reshape(3, 9, 9, 3) - MEAN) / STD
    np.testing.assert_allclose(augment(KEY, images, spec), expected, atol=5e-5)


def test_draws_fill_their_ranges() -> None:
    spec = aug.AugmentSpec(image_size_px=50, **FULL)
    drawn = jax.tree.map(np.asarray, aug.draw(KEY, 4000, spec))
    for values, low, high in (
        (drawn.angle_rad, -np.pi, np.pi),
        (drawn.zoom, 0.8, 1.25),
        (drawn.shift_px, -5.0, 5.0),
        (drawn.brightness, -0.1, 0.1),
        (drawn.contrast, 0.9, 1.1),
        (drawn.saturation, 0.8, 1.2),
        (drawn.hue_turns, -0.05, 0.05),
        (drawn.stain_factors, 0.9, 1.1),
        (drawn.stain_shifts, -0.1, 0.1),
    ):
        room = 0.01 * (high - low)
        assert values.dtype == np.float32
        assert low - 1e-5 <= values.min() < low + room
        assert high - room < values.max() <= high + 1e-5
    np.testing.assert_allclose(np.median(drawn.zoom), 1.0, atol=0.02)
    assert set(np.unique(drawn.mirror)) == {-1.0, 1.0}
    # Drawn apart from one another: no two of the columns move together.
    columns = [
        drawn.angle_rad,
        drawn.zoom,
        *drawn.shift_px.T,
        drawn.brightness,
        drawn.contrast,
        drawn.saturation,
    ]
    columns += [drawn.hue_turns, *drawn.stain_factors.T, *drawn.stain_shifts.T, *drawn.mirror.T]
    correlation = np.corrcoef(np.stack(columns)) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.08


def test_output_is_in_range_float32_and_decided_by_the_key() -> None:
    images = np.concatenate(
        [noise(4, 16), np.zeros((1, 16, 16, 3), np.uint8), np.full((1, 16, 16, 3), 255, np.uint8)]
    )
    spec = aug.AugmentSpec(image_size_px=12, **FULL)
    first, again = augment(KEY, images, spec), augment(KEY, images, spec)
    other = augment(jax.random.key(1), images, spec)
    assert first.shape == (6, 12, 12, 3)
    assert first.dtype == jnp.float32
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=0.1)
    values = denormalised(first)
    assert np.isfinite(values).all()
    assert values.min() >= -1e-5
    assert values.max() <= 1 + 1e-5


@pytest.mark.parametrize("devices", [2, 4])
def test_split_batch_gives_the_same_images(devices: int) -> None:
    images, spec = noise(8, 16), aug.AugmentSpec(image_size_px=12, **FULL)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    split = augment(
        jax.device_put(KEY, NamedSharding(mesh, PartitionSpec())), jax.device_put(images, sharding), spec
    )
    assert split.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(split, augment(KEY, images, spec), atol=1e-6)


def test_spec_takes_the_fields_of_the_configuration() -> None:
    config = {
        name: value for name, value in vars(AugmentConfig()).items() if name not in ("enabled", "mixup_alpha")
    }
    spec = aug.AugmentSpec(image_size_px=64, **config)
    assert spec.resamples
    assert spec.recolours
    assert hash(spec) == hash(aug.AugmentSpec(image_size_px=64, **config))


# Crops, asymmetric turns, colour by chance


def test_crops_keep_to_their_area_and_ratio_and_lie_inside() -> None:
    spec = aug.AugmentSpec(image_size_px=32, crop_area=(0.2, 0.7), crop_ratio=(0.5, 2.0))
    drawn = aug.draw(KEY, 4096, spec)
    assert drawn.window is not None
    height, width, down, right = np.asarray(drawn.window).T
    whole = (height < 1.0) & (width < 1.0)  # a side longer than the image is cut
    area, ratio = (height * width)[whole], (width / height)[whole]
    assert 0.2 - 1e-5 <= area.min() < 0.21
    assert 0.69 < area.max() <= 0.7 + 1e-5
    assert 0.5 - 1e-5 <= ratio.min() < 0.52
    assert 1.9 < ratio.max() <= 2.0 + 1e-5
    for side, centre in ((height, down), (width, right)):
        reach = side * 16 + np.abs(centre)
        assert 15.9 < reach.max() <= 16 + 1e-4
        assert np.corrcoef(side, np.abs(centre))[0, 1] < -0.3  # the smaller, the farther


@pytest.mark.parametrize("angle_deg", [0.0, 90.0])
def test_a_crop_is_that_part_of_the_turned_image_enlarged(angle_deg: float) -> None:
    images = np.random.default_rng(2).random((1, 12, 12, 1), np.float32)
    window = np.asarray([[0.5, 0.25, 3.0, -1.5]], np.float32)  # rows 6 to 11, columns 3 to 5
    matrices = geometry.inverse_affine(
        jnp.asarray([np.deg2rad(angle_deg)], jnp.float32),
        jnp.ones(1),
        jnp.zeros((1, 2)),
        jnp.ones((1, 2)),
        jnp.asarray(window),
    )
    found = np.asarray(affine_sample(jnp.asarray(images), matrices, 12))[0, :, :, 0]
    turned = np.rot90(images[0, :, :, 0], round(angle_deg / 90)).copy()
    rows, columns = 6 + (np.arange(12) + 0.5) / 2 - 0.5, 3 + (np.arange(12) + 0.5) / 4 - 0.5
    grid = np.stack(np.meshgrid(columns, rows), axis=-1) / 11 * 2 - 1  # (12, 12, 2), x first
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(turned)[None, None],
        torch.from_numpy(grid.astype(np.float32))[None],
        mode="bicubic",
        padding_mode="reflection",
        align_corners=True,
    )
    np.testing.assert_allclose(found, expected[0, 0].numpy(), rtol=0, atol=1e-4)


def test_exact_images_are_not_cropped() -> None:
    images = noise(8, 12)
    spec = aug.AugmentSpec(
        image_size_px=12, crop_area=(0.1, 0.5), rotation_deg=(-60.0, 80.0), exact_share=1.0
    )
    np.testing.assert_allclose(augment(KEY, images, spec), center(images, 12), atol=1e-5)


def test_rotation_covers_an_asymmetric_range() -> None:
    angle = np.rad2deg(
        aug.draw(KEY, 4096, aug.AugmentSpec(image_size_px=8, rotation_deg=(-14, 15))).angle_rad
    )
    assert -14.0 <= angle.min() < -13.9
    assert 14.9 < angle.max() <= 15.0 + 1e-4
    assert angle.mean() == pytest.approx(0.5, abs=0.5)


def test_each_colour_change_is_made_with_its_probability() -> None:
    spec = aug.AugmentSpec(
        image_size_px=8, brightness=0.1, contrast=0.2, saturation=0.3, hue=0.04, colour_probability=0.25
    )
    drawn = aug.draw(KEY, 8192, spec)
    changed = np.stack(
        [
            np.asarray(drawn.brightness) != 0,
            np.asarray(drawn.contrast) != 1,
            np.asarray(drawn.saturation) != 1,
            np.asarray(drawn.hue_turns) != 0,
        ]
    )
    np.testing.assert_allclose(changed.mean(axis=1), 0.25, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(changed), np.eye(4), atol=0.05)  # drawn apart
    assert 0.29 < np.abs(np.asarray(drawn.saturation) - 1).max() <= 0.3 + 1e-6


# mixup


def test_mixup_mixes_pairs_with_one_weight() -> None:
    images = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 4, 3)), jnp.float32)
    labels = jnp.eye(6)
    mixed, soft, lam = mixup(jax.random.key(3), images, labels, 1.0)
    share = float(lam)
    assert 0.0 < share < 1.0
    np.testing.assert_allclose(soft.sum(axis=-1), np.ones(6), atol=1e-6)
    # The labels tell the partners, and the images must follow the same ones.
    partner_share = np.asarray(soft) - share * np.eye(6)
    np.testing.assert_allclose(partner_share.sum(axis=0), np.full(6, 1 - share), atol=1e-6)  # a permutation
    partners = partner_share.argmax(axis=1)
    expected = share * np.asarray(images) + (1 - share) * np.asarray(images)[partners]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_mixup_off_changes_nothing() -> None:
    images, labels = jnp.ones((2, 3, 3, 3)), jnp.eye(2)
    mixed, soft, lam = aug.mixup(KEY, images, labels, 0.0)
    assert mixed is images
    assert soft is labels
    assert float(lam) == 1.0


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_weight_is_beta_distributed(alpha: float) -> None:
    def weight(key: jax.Array) -> jax.Array:
        return mixup(key, jnp.zeros((2, 1, 1, 1)), jnp.eye(2), alpha)[2]

    weights = np.asarray(jax.jit(jax.vmap(weight))(jax.random.split(KEY, 4000)))
    np.testing.assert_allclose(weights.mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(weights.var(), 1 / (4 * (2 * alpha + 1)), atol=0.01)  # variance of Beta(a, a)


def test_mixup_keeps_bfloat16() -> None:
    mixed, soft, _ = mixup(KEY, jnp.ones((4, 2, 2, 3), jnp.bfloat16), jnp.eye(4), 0.2)
    assert mixed.dtype == jnp.bfloat16
    assert soft.dtype == jnp.float32


def test_exact_images_are_quarter_turns_mirrors_and_whole_pixel_shifts_of_the_store() -> None:
    images = noise(16, 12)
    spec = aug.AugmentSpec(image_size_px=8, **FULL, exact_share=1.0)
    geometry_only = dataclasses.replace(
        spec, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, stain=0.0
    )
    drawn = aug.draw(KEY, 16, geometry_only)
    assert set(np.round(np.asarray(drawn.angle_rad) / (np.pi / 2)).tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    moved = denormalised(augment(KEY, images, geometry_only))
    for i in range(16):  # every pixel of the result is a pixel of the image
        known = {tuple(p) for p in images[i].reshape(-1, 3).tolist()}
        assert {tuple(p) for p in np.round(moved[i] * 255).astype(int).reshape(-1, 3).tolist()} <= known
    shares = [
        np.mean(np.asarray(aug.draw(KEY, 4000, dataclasses.replace(spec, exact_share=s)).zoom) == 1.0)
        for s in (0.0, 0.5, 1.0)
    ]
    np.testing.assert_allclose(shares, [0.0, 0.5, 1.0], atol=0.03)
