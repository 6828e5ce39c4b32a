"""What ``running`` forks from: a process in which everything that training imports was used once."""

import torch

import lora_core.cli.app
import lora_core.cli.train_terminal
import lora_core.train.loop  # noqa: F401
import networks

torch.set_num_threads(1)
networks.attach(networks.denoiser(), text_encoder=True).detach()
