"""Training adapters: one loop for every denoiser.

TrainConfig ── data        pictures and captions -> samples, latents and text cached by content
            ── denoiser    the frozen model: DiffusersDenoiser, or a host's own
            ── network     adapters that PEFT puts into its parts
            ── objective   noise, timesteps, target, loss
            ── loop        steps, state, validation, samples
            = Adapter      written as any LoRA file, read back and compared before "done" is said
"""
