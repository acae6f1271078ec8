#!/usr/bin/env python
"""The peer of `posteriori train cse`: one ControlNet training step with PyTorch and diffusers on this machine.

    train_cse_peer.py --model DIR [--size 512] [--micro 1] [--steps 3] [--threads 2] [--device cpu] [--dtype f32]

DIR is a Stable-Diffusion-class folder in diffusers' layout. The step is that of diffusers' train_controlnet.py with the
paper's settings: encode, noise, ControlNet and UNet forward, backward to the ControlNet, clip, AdamW. Random images.
Prints seconds a step and peak memory. Needs torch and diffusers.
"""
import argparse
import json
import resource
import time

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--size", type=int, default=512)
ap.add_argument("--micro", type=int, default=1)
ap.add_argument("--steps", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--device", default="cpu")
ap.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
a = ap.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
cuda = a.device.startswith("cuda")

unet = UNet2DConditionModel.from_pretrained(a.model, subfolder="unet").to(a.device).requires_grad_(False)
vae = AutoencoderKL.from_pretrained(a.model, subfolder="vae").to(a.device).requires_grad_(False)
controlnet = ControlNetModel.from_unet(unet).to(a.device).train()
optimiser = torch.optim.AdamW(controlnet.parameters(), lr=5e-6, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
alphas = torch.cumprod(1 - betas, 0).to(a.device)
context = torch.randn(a.micro, 77, unet.config.cross_attention_dim, device=a.device)
cast = torch.autocast(a.device.split(":")[0], torch.bfloat16, enabled=a.dtype == "bf16")

for step in range(a.steps):
    image = torch.rand(a.micro, 3, a.size, a.size, device=a.device) * 2 - 1
    condition = torch.rand_like(image) * 2 - 1
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    with cast:
        with torch.no_grad():
            z0 = vae.encode(image).latent_dist.sample() * 0.18215
        eps = torch.randn_like(z0)
        t = torch.randint(0, 1000, (a.micro,), device=a.device)
        alpha = alphas[t].view(-1, 1, 1, 1)
        zt = alpha.sqrt() * z0 + (1 - alpha).sqrt() * eps
        down, mid = controlnet(zt, t, context, condition, return_dict=False)
        out = unet(zt, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        loss = (out.float() - eps).pow(2).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(controlnet.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"step": step, "seconds": round(seconds, 3), "peak_gib": round(peak / 2**30, 2)}), flush=True)
