"""Buckets and views: which part of a picture is trained on, at which size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors import ConfigError
from lora_core.train.config import DataSection
from lora_core.train.data.buckets import bucket_of, bucket_sizes
from lora_core.train.data.picture import Picture
from lora_core.train.data.views import center_view, covering, drawn_view, possible_views, size_row


def rules(**settings: Any) -> DataSection:
    return DataSection(**settings)


def picture(width: int, height: int) -> Picture:
    return Picture(Path("a.png"), "a.png", (width, height), "digest")


def test_buckets_have_sides_in_steps_an_area_not_over_the_resolutions_and_bounded_proportions():
    sizes = bucket_sizes(rules(resolution=512), 8)

    assert (512, 512) in sizes
    assert (704, 320) not in sizes, "wider than 2:1"
    assert {(640, 384), (384, 640), (576, 448), (448, 576)} <= set(sizes)
    assert all(w % 64 == h % 64 == 0 and w * h <= 512 * 512 and 0.5 <= w / h <= 2 for w, h in sizes)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((3000, 2000), (608, 416)),
        ((2000, 3000), (416, 608)),
        ((4000, 1000), (704, 352)),
        ((1000, 900), (544, 480)),
    ],
)
def test_a_picture_goes_to_the_bucket_of_its_proportions(size: tuple[int, int], bucket: tuple[int, int]):
    section = rules(resolution=512, bucket_step=32)
    sizes = bucket_sizes(section, 8)

    assert bucket_of(size, sizes, section) == bucket
    errors = {(w, h): abs(math.log(w / h * size[1] / size[0])) for w, h in sizes}
    assert errors[bucket] == min(errors.values())


def test_a_small_picture_gets_a_bucket_of_its_own_unless_it_may_be_enlarged():
    small, large = rules(resolution=512), rules(resolution=512, upscale=True)

    assert bucket_of((300, 200), bucket_sizes(small, 8), small) == (256, 192)
    assert bucket_of((300, 200), bucket_sizes(large, 8), large) == (640, 384)


def test_without_buckets_all_pictures_have_the_resolution():
    section = rules(resolution=(96, 64), buckets=False)

    assert bucket_sizes(section, 8) == [(96, 64)]
    assert bucket_of((10, 500), [(96, 64)], section) == (96, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 500, "buckets": False}, "data.resolution 500 is not a multiple of 8, .* set 496"),
        ({"resolution": 512, "bucket_step": 20}, "data.bucket_step 20 is not a multiple of 8"),
        ({"resolution": 32}, "32x32 is below data.bucket_step 64"),
    ],
)
def test_sizes_that_the_model_cannot_take_are_faults(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        bucket_sizes(rules(**settings), 8)


@given(
    resolution=st.sampled_from([64, 256, 512, 768, 1024]),
    step=st.sampled_from([8, 32, 64]),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    upscale=st.booleans(),
    crop=st.sampled_from(["center", "random"]),
)
def test_any_picture_fills_its_bucket(
    resolution: int, step: int, size: tuple[int, int], upscale: bool, crop: str
) -> None:
    section = rules(resolution=resolution, bucket_step=step, upscale=upscale, crop=crop)
    bucket = bucket_of(size, bucket_sizes(section, 8), section)
    view = drawn_view(picture(*size), bucket, section, 0, 7, 3)

    assert bucket[0] % 8 == bucket[1] % 8 == 0
    assert bucket[0] * bucket[1] <= resolution**2
    for corner, part, whole in zip(view.corner, view.size, view.resized, strict=True):
        assert 0 <= corner <= whole - part


def test_the_middle_is_cut_from_what_just_covers_the_bucket():
    view = center_view(picture(300, 100), (64, 64))

    assert covering((300, 100), (64, 64)) == view.resized == (192, 64)
    assert view.corner == (64, 0)


def test_a_random_crop_reaches_both_ends():
    section = rules(resolution=64, crop="random")
    lefts = {drawn_view(picture(80, 64), (64, 64), section, 0, step, 0).corner for step in range(400)}

    assert lefts == {(left, 0) for left in range(17)}


def test_a_share_of_draws_is_mirrored_and_colours_change_within_bounds():
    section = rules(resolution=64, flip=0.5, colour_jitter=0.2)
    views = [drawn_view(picture(64, 64), (64, 64), section, 0, step, 0) for step in range(400)]

    # 400 draws of share 0.5: the standard deviation is 10.
    assert 150 < sum(view.flip for view in views) < 250
    factors = [factor for view in views for factor in view.jitter or ()]
    assert 0.8 <= min(factors) < 0.82
    assert 1.18 < max(factors) <= 1.2


@pytest.mark.parametrize(
    ("settings", "flips"),
    [({}, [False]), ({"flip": 0.5}, [False, True]), ({"flip": 1.0}, [True]), ({"crop": "random"}, [False])],
)
def test_views_that_can_be_drawn_of_a_picture_that_fits(settings: dict[str, Any], flips: list[bool]):
    views = possible_views(picture(64, 64), (64, 64), rules(resolution=64, **settings))

    assert [view.flip for view in views or ()] == flips


def test_views_are_too_many_where_crops_or_colours_are_random():
    assert possible_views(picture(80, 64), (64, 64), rules(crop="random")) is None
    assert possible_views(picture(64, 64), (64, 64), rules(colour_jitter=0.1)) is None


def test_sizes_are_original_corner_and_target_with_the_height_first():
    whole = picture(300, 100)
    view = center_view(whole, (64, 64))
    off = drawn_view(whole, (64, 64), rules(crop="random", flip=1.0), 0, 0, 0)

    assert size_row(whole, view) == [100, 300, 0, 64, 64, 64]
    # Mirrored, what was left of the crop is right of it.
    assert size_row(whole, off)[3] == 192 - 64 - off.corner[0]
