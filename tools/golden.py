#!/usr/bin/env python
"""Golden tensors of a model folder, for `posteriori verify`: is the engine right for this model?

    golden.py MODEL_DIR OUT.safetensors [--controlnet DIR] [--latent 16] [--seed 0]

Runs UNet, autoencoder and, if given, ControlNet of a folder in diffusers' layout with PyTorch and diffusers in f64 on random
inputs; writes their outputs and the cotangents of their inputs, with OUT.index.json beside. Tolerances are four times the
error of PyTorch's own f32 and bf16 runs. Then:

    posteriori verify --model MODEL_DIR [--cse DIR] --goldens OUT.safetensors

Needs torch, diffusers, safetensors.
"""
import argparse
import json
import os

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("out")
ap.add_argument("--controlnet")
ap.add_argument("--latent", type=int, default=16, help="side of the latent")
ap.add_argument("--seed", type=int, default=0)
a = ap.parse_args()

unet = UNet2DConditionModel.from_pretrained(a.model, subfolder="unet")
vae = AutoencoderKL.from_pretrained(a.model, subfolder="vae")
controlnet = ControlNetModel.from_pretrained(a.controlnet) if a.controlnet else None
factor = 2 ** (len(vae.config.block_out_channels) - 1)
channels, side = unet.config.in_channels, a.latent
random = torch.Generator().manual_seed(a.seed)


def draw(*shape):
    return torch.randn(*shape, generator=random)


with open(os.path.join(a.model, "model_index.json")) as file:
    prompted = (json.load(file).get("text_encoder") or [None])[0] is not None
tokens = 77 if prompted else 1
context = draw(2, tokens, unet.config.cross_attention_dim) if prompted else torch.zeros(2, 1, unet.config.cross_attention_dim)
inputs = {
    "in/z": draw(2, channels, side, side),
    "in/z0": draw(1, channels, side, side) * vae.config.scaling_factor,
    "in/ctx": context,
    "in/cond": draw(2, 3, factor * side, factor * side).clamp(-1, 1),
    "in/img": draw(1, 3, factor * side, factor * side).clamp(-1, 1),
    "in/cot_eps": draw(2, channels, side, side),
    "in/cot_img": draw(1, 3, factor * side, factor * side),
    "in/cot_mean": draw(1, channels, side, side),
}


def pulled(function, x, cotangent):
    x = x.clone().requires_grad_()
    y = function(x)
    (y * cotangent).sum().backward()
    return y.detach(), x.grad


def outputs(dtype):
    nets = [net.to(dtype).requires_grad_(False) for net in (unet, vae, controlnet) if net is not None]
    given = {name: t.to(dtype) for name, t in inputs.items()}
    out = {}
    for t in (1, 500, 999):
        def eps(z, residuals=False):
            more = {}
            if residuals:
                down, mid = controlnet(z, t, given["in/ctx"], given["in/cond"], return_dict=False)
                more = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
            return unet(z, t, given["in/ctx"], **more).sample
        for name, on in [("unet", False)] + ([("cn", True)] if controlnet else []):
            y, dz = pulled(lambda z: eps(z, on), given["in/z"], given["in/cot_eps"])
            out[f"{name}/t{t}/eps"], out[f"{name}/t{t}/vjp_z"] = y, dz
    y, dz = pulled(lambda z: vae.decode(z / vae.config.scaling_factor).sample, given["in/z0"], given["in/cot_img"])
    out["vae/decode/img"], out["vae/decode/vjp_z"] = y, dz
    y, dx = pulled(lambda x: vae.encode(x).latent_dist.mean, given["in/img"], given["in/cot_mean"])
    out["vae/encode/mean"], out["vae/encode/vjp_x"] = y, dx
    assert all(torch.isfinite(t).all() for t in out.values()), [type(net).__name__ for net in nets]
    return {name: t.double() for name, t in out.items()}


def error(got, want):
    return float((got - want).norm() / want.norm())


# bf16 first would round the weights for good.
truth = outputs(torch.float64)
low = {"fp32": outputs(torch.float32), "bf16": outputs(torch.bfloat16)}
index = {name: {"shape": list(t.shape), "role": "input"} for name, t in inputs.items()}
for name, t in truth.items():
    tol = {precision: 4 * error(got[name], t) for precision, got in low.items()}
    index[name] = {"shape": list(t.shape), "role": "output", "tol": tol}
save_file({name: t.float().contiguous() for name, t in (inputs | truth).items()}, a.out)
with open(os.path.splitext(a.out)[0] + ".index.json", "w") as file:
    json.dump({"fixture_seed": a.seed, "tensors": index}, file, indent=1)
print(f"{len(truth)} tensors in {a.out}")
