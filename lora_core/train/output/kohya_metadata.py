"""kohya's ``ss_*``: the names that sd-scripts writes, each value as ``str`` of it or as JSON.

Readers know them by these texts: ``True``, ``None``, ``(64, 64)``, and JSON objects for counts of tags, folders and
buckets. Source: kohya-ss/sd-scripts, ``train_network.py``.
"""

from __future__ import annotations

import json
import time

from ...architectures import ARCHITECTURES
from ..config import TrainConfig
from ..optimizers.rates import warmup_steps
from .facts import BaseFacts, RunFacts

_MODULES = {"lora": "networks.lora", "dora": "networks.lora", "oft": "networks.oft"}
_LYCORIS = "lycoris.kohya"
_PRECISION = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def kohya_metadata(config: TrainConfig, facts: RunFacts) -> dict[str, str]:
    """All ``ss_*``. What kohya's scripts have and this engine has not is ``None``, as in their files."""
    values = {**_run(config, facts), **_network(config), **_objective(config), **_data(config, facts), **_models(facts)}
    return {f"ss_{name}": value if isinstance(value, str) else str(value) for name, value in values.items()}


def _run(config: TrainConfig, facts: RunFacts) -> dict[str, object]:
    run, optimizer = config.run, config.optimizer
    batch = run.batch * facts.processes
    pictures = batch * run.accumulate
    return {
        "session_id": facts.session,
        "training_started_at": facts.started,
        "training_finished_at": facts.finished or time.time(),
        "output_name": config.output.name,
        "learning_rate": optimizer.learning_rate,
        "unet_lr": optimizer.learning_rate if config.network.train else None,
        "text_encoder_lr": config.text_encoder.learning_rate if config.text_encoder.train else None,
        "optimizer": f"{optimizer.name}(weight_decay={optimizer.weight_decay},betas={optimizer.betas})",
        "lr_scheduler": optimizer.schedule,
        "lr_warmup_steps": warmup_steps(optimizer, run.steps) if optimizer.schedule != "constant" else 0,
        "max_grad_norm": optimizer.clip,
        "num_epochs": facts.epochs(run.steps, pictures),
        "epoch": facts.epochs(facts.step, pictures),
        "steps": facts.step,
        "max_train_steps": run.steps,
        "num_batches_per_epoch": facts.epochs(1, 1) and -(-facts.epoch_size // batch),
        "gradient_checkpointing": run.checkpointing,
        "gradient_accumulation_steps": run.accumulate,
        "mixed_precision": _PRECISION[run.precision],
        "full_fp16": False,
        "fp8_base": config.model.quantise == "fp8",
        "seed": run.seed,
        "training_comment": "\n".join(text for text in (config.output.comment, facts.comment) if text) or None,
    }


def _network(config: TrainConfig) -> dict[str, object]:
    network = config.network
    arguments: dict[str, object] = {}
    if network.type not in _MODULES:
        arguments["algo"] = network.type
    if network.type == "dora":
        arguments["dora_wd"] = True
    if network.conv_rank:
        arguments["conv_dim"] = network.conv_rank
        arguments["conv_alpha"] = network.conv_alpha if network.conv_alpha is not None else network.conv_rank
    if network.rslora:
        arguments["rs_lora"] = True
    if network.rank_dropout:
        arguments["rank_dropout"] = network.rank_dropout
    if network.module_dropout:
        arguments["module_dropout"] = network.module_dropout
    if network.lora_plus != 1:
        arguments["loraplus_lr_ratio"] = network.lora_plus
    if network.block_ranks:
        arguments["block_ranks"] = network.block_ranks
    made: dict[str, object] = {
        "network_module": _MODULES.get(network.type, _LYCORIS),
        "network_dim": network.rank,
        "network_alpha": network.alpha if network.alpha is not None else float(network.rank),
        "network_dropout": network.dropout or None,
    }
    return made | ({"network_args": json.dumps(arguments)} if arguments else {})


def _objective(config: TrainConfig) -> dict[str, object]:
    objective = config.objective
    min_snr = objective.weighting in ("min_snr", "soft_min_snr")
    huber = objective.loss in ("huber", "smooth_l1")
    return {
        "min_snr_gamma": objective.gamma if min_snr else None,
        "debiased_estimation": objective.weighting == "debiased",
        "noise_offset": objective.noise_offset or None,
        "noise_offset_random_strength": objective.noise_offset_random,
        "adaptive_noise_scale": None,
        "multires_noise_iterations": objective.multires_noise or None,
        "multires_noise_discount": objective.multires_discount,
        "ip_noise_gamma": objective.input_perturbation or None,
        "zero_terminal_snr": config.model.zero_terminal_snr,
        "loss_type": objective.loss,
        "huber_schedule": {"exponential": "exponential", "snr": "snr"}.get(objective.huber_schedule, "constant"),
        "huber_c": objective.huber_delta if huber else None,
        "prior_loss_weight": config.data.prior.weight,
        "scale_weight_norms": None,
    }


def _data(config: TrainConfig, facts: RunFacts) -> dict[str, object]:
    data, batch = config.data, config.run.batch
    sides = [side for bucket in _buckets(facts) for side in bucket] or list(data.resolution)
    shared: dict[str, object] = {
        "color_aug": data.colour_jitter > 0,
        "flip_aug": data.flip > 0,
        "random_crop": data.crop == "random",
        "shuffle_caption": data.shuffle_tags,
    }
    buckets: dict[str, object] = {
        "enable_bucket": data.buckets,
        "min_bucket_reso": min(sides),
        "max_bucket_reso": max(sides),
    }
    folders = {name: {"n_repeats": one.repeats, "img_count": one.pictures} for name, one in facts.folders.items()}
    prior = {name for name, one in facts.folders.items() if one.prior}
    counts: dict[str, object] = {"num_train_images": facts.trained, "num_reg_images": facts.prior}
    subsets = [
        {
            "image_dir": name,
            "img_count": one.pictures,
            "num_repeats": one.repeats,
            "is_reg": one.prior,
            "class_tokens": data.prior.caption if one.prior else data.caption or None,
            "keep_tokens": data.keep_tokens,
            "enable_wildcard": data.wildcards,
            "caption_prefix": data.trigger or None,
            **shared,
        }
        for name, one in facts.folders.items()
    ]
    dataset = {
        "is_dreambooth": True,
        "batch_size_per_device": batch,
        **counts,
        "resolution": data.resolution,
        **buckets,
        "tag_frequency": facts.tag_frequency,
        "bucket_info": facts.bucket_info,
        "subsets": subsets,
    }
    return {
        **counts,
        "num_validation_images": facts.held_out,
        "validation_split": config.validation.split,
        "batch_size_per_device": batch,
        "total_batch_size": batch * facts.processes * config.run.accumulate,
        "resolution": data.resolution,
        **shared,
        **buckets,
        "bucket_no_upscale": not data.upscale,
        "keep_tokens": data.keep_tokens,
        "cache_latents": data.cache_latents,
        "caption_dropout_rate": data.caption_dropout,
        "caption_tag_dropout_rate": data.tag_dropout,
        "dataset_dirs": json.dumps({name: one for name, one in folders.items() if name not in prior}),
        "reg_dataset_dirs": json.dumps({name: one for name, one in folders.items() if name in prior}),
        "tag_frequency": json.dumps({name: dict(tags) for name, tags in facts.tag_frequency.items()}),
        "bucket_info": json.dumps(facts.bucket_info),
        "datasets": json.dumps([dataset]),
        "clip_skip": config.model.clip_skip + 1 if config.model.clip_skip else None,
        "max_token_length": None,
    }


def _buckets(facts: RunFacts) -> list[list[int]]:
    """(width, height) of each bucket."""
    found = facts.bucket_info.get("buckets")
    rows = found.values() if isinstance(found, dict) else ()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return [row["resolution"] for row in rows]  # pyright: ignore[reportUnknownVariableType]


def _models(facts: RunFacts) -> dict[str, object]:
    row = ARCHITECTURES.get(facts.architecture)
    v = facts.prediction == "v"
    version = row.base_versions[0] if row.base_versions else row.name
    values: dict[str, object] = {
        "v2": row.family == "sd21",
        "v_parameterization": v,
        # kohya has a version of its own for SD 2 that predicts v.
        "base_model_version": "sd_v2_v" if row.family == "sd21" and v else version,
    }
    return values | _model("sd_model", "new_sd_model_hash", facts.base) | _model("vae", "new_vae_hash", facts.vae)


def _model(name: str, new_hash: str, model: BaseFacts) -> dict[str, object]:
    values = {f"{name}_name": model.name, f"{name}_hash": model.old_hash, new_hash: model.sha256}
    return {key: value for key, value in values.items() if value}
