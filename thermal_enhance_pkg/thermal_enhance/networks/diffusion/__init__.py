"""What the two diffusion methods share: one-step map, joint attention, autoencoders, task LoRA."""
