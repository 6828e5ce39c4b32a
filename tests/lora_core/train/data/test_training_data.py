"""``TrainingData`` as the loop uses it: samples, caches, batches, what is held out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lora_core.train.data import Batch, TrainingData
from lora_core.train.data.encoding import LatentsError
from painted import Arithmetic, Told, open_data, paint, paint_some


def prepared(data: TrainingData, denoiser: Arithmetic, folder: Path | None, told: Told | None = None) -> bool:
    return data.prepare(denoiser, folder, told or Told(), text=True)  # type: ignore[arg-type]


def batch_of(data: TrainingData, step: int, count: int, denoiser: Arithmetic) -> Batch:
    return data.batch(step, data.samples(step, count), denoiser)  # type: ignore[arg-type]


def latents_of(path: Path, flip: bool = False) -> torch.Tensor:
    """What ``Arithmetic`` makes of a picture of 64 px."""
    with Image.open(path) as image:
        pixels = torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.float32).view(64, 64, 3)
    blocks = (pixels.permute(2, 0, 1) / 127.5 - 1).view(3, 8, 8, 8, 8).mean(dim=(2, 4))
    return blocks.flip(-1) if flip else blocks


def test_a_batch_holds_latents_conditions_sizes_and_weights(tmp_path: Path):
    paint_some(tmp_path / "data", 6)
    data, denoiser = open_data(tmp_path / "data"), Arithmetic()

    prepared(data, denoiser, tmp_path / "cache")
    batch = batch_of(data, 0, 4, denoiser)

    assert data.epoch_size == 6
    assert batch.mean.shape == (4, 3, 8, 8)
    assert batch.std is not None
    assert batch.mask is None
    assert batch.positions == [0, 1, 2, 3]
    for row, sample in enumerate(batch.samples):
        name = batch.names[row]
        assert sample.caption == f"thing {name[1]}"
        # Means of 64 numbers up to 1 in another order of adding.
        torch.testing.assert_close(batch.mean[row], latents_of(tmp_path / "data" / name), rtol=0, atol=1e-5)
        assert batch.conditions is not None
        assert torch.equal(batch.conditions["text"][row], denoiser.encode_text([sample.caption])["text"][0])
    assert batch.sizes.tolist() == [[64, 64, 0, 0, 64, 64]] * 4
    assert batch.weights.tolist() == [1] * 4


def test_steps_encode_nothing_once_the_caches_are_filled(tmp_path: Path):
    paint_some(tmp_path / "data", 5)
    denoiser = Arithmetic()
    data = open_data(tmp_path / "data", flip=0.5, caption_dropout=0.5)

    prepared(data, denoiser, tmp_path / "cache")
    assert (denoiser.pictures, len(denoiser.captions)) == (10, 6), "each picture and its mirror; each caption and none"
    first = [batch_of(data, step, 4, denoiser) for step in range(10)]
    other = open_data(tmp_path / "data", flip=0.5, caption_dropout=0.5)
    prepared(other, denoiser, tmp_path / "cache")
    second = [batch_of(other, step, 4, denoiser) for step in range(10)]

    assert (denoiser.pictures, len(denoiser.captions)) == (10, 6)
    assert all(torch.equal(a.mean, b.mean) and a.captions == b.captions for a, b in zip(first, second, strict=True))
    assert data.latents_are_kept
    assert data.text_is_kept


@pytest.mark.parametrize("change", ["picture", "vae", "resolution", "flip"])
def test_nothing_stale_is_served(tmp_path: Path, change: str):
    """The same names, and something else that latents follow from: they are made again."""
    paint_some(tmp_path / "data", 3)
    denoiser = Arithmetic()
    prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache")
    denoiser.pictures = 0
    settings: dict[str, Any] = {}
    if change == "picture":
        stat = (tmp_path / "data" / "p0.png").stat()
        paint(tmp_path / "data" / "p0.png", seed=77)
        os.utime(tmp_path / "data" / "p0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "vae":
        denoiser.vae_fingerprint, denoiser.spoil = "another", 2.0
    elif change == "resolution":
        settings["resolution"] = 32
    else:
        settings["flip"] = 1.0

    data = open_data(tmp_path / "data", **settings)
    prepared(data, denoiser, tmp_path / "cache")
    batch = batch_of(data, 0, 3, denoiser)

    assert denoiser.pictures == (1 if change == "picture" else 3)
    if change == "resolution":
        assert batch.mean.shape == (3, 3, 4, 4)
        return
    for row, name in enumerate(batch.names):
        expected = latents_of(tmp_path / "data" / name, flip=change == "flip") * denoiser.spoil
        torch.testing.assert_close(batch.mean[row], expected, rtol=0, atol=1e-5)


def test_text_is_made_again_for_another_text_encoder(tmp_path: Path):
    paint_some(tmp_path / "data", 2)
    denoiser = Arithmetic()
    prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache")
    denoiser.text_fingerprint = "clip skip 2"

    prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache")

    assert denoiser.captions == ["thing 0", "thing 1"] * 2


def test_a_damaged_entry_is_made_again_with_a_warning(tmp_path: Path):
    paint_some(tmp_path / "data", 2)
    denoiser, told = Arithmetic(), Told()
    prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache")
    for path in (tmp_path / "cache" / "latents").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-8])

    data = open_data(tmp_path / "data")
    prepared(data, denoiser, tmp_path / "cache", told)
    batch = batch_of(data, 0, 2, denoiser)

    assert denoiser.pictures == 4
    assert sum("damaged entry of the cache" in warning for warning in told.warnings) == 2
    for row, name in enumerate(batch.names):
        torch.testing.assert_close(batch.mean[row], latents_of(tmp_path / "data" / name), rtol=0, atol=1e-5)


def test_without_prepare_batches_are_the_same(tmp_path: Path):
    paint_some(tmp_path / "data", 4)
    bare, full = open_data(tmp_path / "data"), open_data(tmp_path / "data")
    prepared(full, Arithmetic(), tmp_path / "cache")

    one, other = batch_of(bare, 3, 4, Arithmetic()), batch_of(full, 3, 4, Arithmetic())

    assert torch.equal(one.mean, other.mean)
    assert one.conditions is not None
    assert other.conditions is not None
    assert torch.equal(one.conditions["text"], other.conditions["text"])


def test_captions_that_no_cache_holds_are_not_fetched_from_the_device(tmp_path: Path):
    """That would wait for all that the device has to do, in each step."""

    class Elsewhere(Arithmetic):
        def encode_text(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
            return {name: tensor.to("meta") for name, tensor in super().encode_text(captions).items()}

    paint_some(tmp_path / "data", 2)
    data, denoiser = open_data(tmp_path / "data", shuffle_tags=True), Elsewhere()
    prepared(data, denoiser, tmp_path / "cache")

    batch = batch_of(data, 0, 2, denoiser)

    assert batch.conditions is not None
    assert batch.conditions["text"].is_meta


def test_without_text_there_are_no_conditions(tmp_path: Path):
    paint_some(tmp_path / "data", 2)
    data, denoiser = open_data(tmp_path / "data"), Arithmetic()

    data.prepare(denoiser, None, Told(), text=False)  # type: ignore[arg-type]

    assert batch_of(data, 0, 2, denoiser).conditions is None
    assert denoiser.captions == []


@pytest.mark.parametrize("settings", [{"cache_latents": False, "cache_text": False}, {"cache_latents": True}])
def test_caches_can_be_off(tmp_path: Path, settings: dict[str, Any]):
    paint_some(tmp_path / "data", 3)
    data, denoiser = open_data(tmp_path / "data", **settings), Arithmetic()
    prepared(data, denoiser, tmp_path / "cache")

    batch = batch_of(data, 0, 3, denoiser)

    kept = sorted(path.name for path in (tmp_path / "cache").iterdir()) if (tmp_path / "cache").exists() else []
    assert kept == ([] if "cache_text" in settings else ["latents", "text"])
    for row, name in enumerate(batch.names):
        torch.testing.assert_close(batch.mean[row], latents_of(tmp_path / "data" / name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_random_views_are_read_ahead_and_the_same_with_any_number_of_threads(tmp_path: Path, workers: int):
    paint_some(tmp_path / "data", 6, (96, 80))
    settings = {"crop": "random", "colour_jitter": 0.2, "flip": 0.5}
    data, plain = open_data(tmp_path / "data", workers=workers, **settings), open_data(tmp_path / "data", **settings)
    denoiser = Arithmetic()
    assert not data.latents_are_kept

    for step in range(6):
        data.prefetch(data.samples(step + 1, 4))
        assert torch.equal(batch_of(data, step, 4, denoiser).mean, batch_of(plain, step, 4, denoiser).mean)
    data.close()
    plain.close()

    views = {sample.view for step in range(6) for sample in data.samples(step, 4)}
    assert len(views) == 24, "no two draws of 24 are the same"


def test_samples_are_a_function_of_seed_and_step(tmp_path: Path):
    paint_some(tmp_path, 9)
    settings: dict[str, Any] = {"flip": 0.5, "caption_dropout": 0.2, "shuffle_tags": True}
    one, other = open_data(tmp_path, **settings), open_data(tmp_path, **settings)
    steps = [one.samples(step, 4) for step in range(20)]

    assert other.samples(13, 4) == steps[13]
    assert [open_data(tmp_path, seed=1, **settings).samples(step, 4) for step in range(20)] != steps


def test_buckets_keep_proportions(tmp_path: Path):
    for number, size in enumerate([(128, 128), (192, 96), (96, 192), (150, 150)]):
        paint(tmp_path / f"{number}.png", size, number, "x")
    data, denoiser = open_data(tmp_path, buckets=True, bucket_step=32, resolution=128), Arithmetic()

    batches = [batch_of(data, step, 2, denoiser) for step in range(4)]

    assert Counter(batch.mean.shape[2:] for batch in batches) == {(16, 16): 2, (12, 20): 1, (20, 12): 1}
    assert Counter(sample.picture for batch in batches for sample in batch.samples) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert data.bucket_info() == {
        "buckets": {
            "0": {"resolution": [96, 160], "count": 1},
            "1": {"resolution": [128, 128], "count": 2},
            "2": {"resolution": [160, 96], "count": 1},
        },
        "mean_img_ar_error": pytest.approx((2 - 160 / 96 + 96 / 160 - 0.5) / 4),
    }


def test_pictures_of_the_class_are_mixed_one_to_one(tmp_path: Path):
    paint_some(tmp_path / "data", 3)
    for number in range(5):
        paint(tmp_path / "class" / f"{number}.png", (100, 50), 50 + number)
    data = open_data(
        tmp_path / "data",
        trigger="sks",
        prior={"folder": str(tmp_path / "class"), "caption": "a photo of a dog", "weight": 0.5},
    )
    denoiser = Arithmetic()
    prepared(data, denoiser, None)

    samples = [sample for step in range(15) for sample in data.samples(step, 2)]
    batch = batch_of(data, 0, 4, denoiser)

    assert data.epoch_size == 3
    assert Counter(sample.prior for sample in samples) == {True: 15, False: 15}
    assert {sample.caption for sample in samples if sample.prior} == {"a photo of a dog"}
    assert {sample.caption for sample in samples if not sample.prior} == {f"sks, thing {number}" for number in range(3)}
    assert batch.weights.tolist() == [1, 0.5, 1, 0.5]
    assert batch.mean.shape == (4, 3, 8, 8), "cut to the bucket of the subject"


def test_pictures_of_the_class_are_selected_from_their_own_table(tmp_path: Path):
    """One folder for both: what is learned, and what is to stay as it is."""
    rows = [
        {"file_name": f"{number}.png", "text": f"thing {number}", "kind": kind} for number, kind in enumerate("abbb")
    ]
    for row in rows:
        paint(tmp_path / row["file_name"], (64, 64), int(row["file_name"][0]))
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))

    data = open_data(tmp_path, select={"kind": "a"}, prior={"folder": str(tmp_path), "select": {"kind": "!a"}})

    assert [(picture.name, picture.prior) for picture in data.pictures] == [
        ("0.png", False),
        ("1.png", True),
        ("2.png", True),
        ("3.png", True),
    ]


def test_pictures_of_the_class_serve_all_buckets_and_no_others(tmp_path: Path):
    """Wide ones go to the widest bucket there is; where none is near, all serve."""
    for number, size in enumerate([(64, 64), (128, 128), (96, 192)]):
        paint(tmp_path / "data" / f"{number}.png", size, number, "x")
    for number, size in enumerate([(400, 200), (300, 200)]):
        paint(tmp_path / "class" / f"{number}.png", size, 50 + number, "class")
    data = open_data(
        tmp_path / "data",
        buckets=True,
        bucket_step=32,
        resolution=128,
        upscale=True,
        prior={"folder": str(tmp_path / "class")},
    )
    denoiser = Arithmetic()
    prepared(data, denoiser, None)
    assert denoiser.pictures == 3 + 2 * 2

    samples = [sample for step in range(12) for sample in data.samples(step, 2)]
    batches = [batch_of(data, step, 2, denoiser) for step in range(12)]

    seen = {(data.pictures[sample.picture].name, sample.view.size) for sample in samples if sample.prior}
    assert seen == {(name, size) for name in ("0.png", "1.png") for size in ((128, 128), (96, 160))}
    assert denoiser.pictures == 7, "all of them were in the cache"
    assert {batch.mean.shape for batch in batches} == {(2, 3, 16, 16), (2, 3, 20, 12)}


def test_held_out_pictures_are_in_the_cache_too(tmp_path: Path):
    paint_some(tmp_path, 6)
    data, denoiser = open_data(tmp_path, flip=1.0, validation={"split": 0.5, "train_subset": 2}), Arithmetic()
    prepared(data, denoiser, None)
    assert denoiser.pictures == 3 + 3 + 2, "mirrored for training; plain for measuring"

    for sample in (*data.held_out, *data.train_subset):
        data.batch(0, [sample], denoiser)  # type: ignore[arg-type]

    assert denoiser.pictures == 8


def test_weights_and_repeats_of_the_metadata(tmp_path: Path):
    rows: list[dict[str, Any]] = [
        {"file_name": "a.png", "text": "x", "weight": 0.25, "repeats": 3},
        {"file_name": "b.png", "text": "y"},
    ]
    for seed, row in enumerate(rows):
        paint(tmp_path / row["file_name"], seed=seed)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    data = open_data(tmp_path)

    samples = [sample for step in range(2) for sample in data.samples(step, 4)]

    assert data.epoch_size == 4
    assert Counter((sample.caption, sample.weight) for sample in samples) == {("x", 0.25): 6, ("y", 1): 2}


def test_masks_weigh_latents_and_pictures_without_one_count_whole(tmp_path: Path):
    paint_some(tmp_path, 2)
    mask = Image.new("L", (64, 64), 255)
    mask.paste(0, (0, 0, 64, 32))
    mask.save(tmp_path / "p1.mask.png")
    data, denoiser, told = open_data(tmp_path, masks="file", mask_floor=0.25), Arithmetic(), Told()
    prepared(data, denoiser, None, told)

    batch = batch_of(data, 0, 2, denoiser)

    assert batch.mask is not None
    assert batch.mask.shape == (2, 1, 8, 8)
    assert told.warnings == ["1 of 2 pictures have no mask: all of them counts"]
    for row, name in enumerate(batch.names):
        expected = torch.ones(1, 8, 8)
        if name == "p1.png":
            expected[:, :4] = 0.25
        assert torch.equal(batch.mask[row], expected)


@pytest.mark.parametrize(
    ("spoil", "what"), [(float("nan"), "192 of its 192 latents are NaN"), (0.0, "all its latents are 0")]
)
def test_latents_that_are_of_no_use_stop_the_run_and_name_the_picture(tmp_path: Path, spoil: float, what: str):
    paint_some(tmp_path / "data", 2)
    denoiser = Arithmetic()
    denoiser.spoil = spoil

    with pytest.raises(LatentsError, match=f"p0.png: {what}"):
        prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache")

    assert list((tmp_path / "cache").rglob("*.safetensors")) == [], "nothing of it is kept"
    with pytest.raises(LatentsError, match=what):
        batch_of(open_data(tmp_path / "data", colour_jitter=0.1), 0, 2, denoiser)


def test_a_picture_of_one_colour_is_no_fault(tmp_path: Path):
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    data, denoiser = open_data(tmp_path, caption="white"), Arithmetic()

    prepared(data, denoiser, None)

    assert torch.equal(batch_of(data, 0, 1, denoiser).mean, torch.ones(1, 3, 8, 8))


def test_preparing_shows_its_progress_and_can_be_cancelled(tmp_path: Path):
    paint_some(tmp_path / "data", 4)
    denoiser, told = Arithmetic(), Told(cancel_after=2)

    assert not prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache", told)
    assert denoiser.pictures == 2
    assert told.stages[-1] == ("caching latents", 2, 4)
    told = Told()
    assert prepared(open_data(tmp_path / "data"), denoiser, tmp_path / "cache", told)
    assert denoiser.pictures == 4, "it goes on where it was"
    assert told.stages[0] == ("caching latents", 2, 4)
    assert told.stages[-1] == ("caching text", 4, 4)
