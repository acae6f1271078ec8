//! Training: gradients against differences, the optimiser against closed forms, runs that stop and go on, models that
//! come out of it.

mod gradients;
mod layers;
mod optimiser;
mod runs;
mod settings;

use std::fs;
use std::path::Path;

use posteriori::io::weights::{Checkpoint, Kind, Stored, write_safetensors};
use posteriori::nn::param::{Parameter, Weights};
use posteriori::rng::{Philox, image_key};
use posteriori::train::initial;
use posteriori::{Cx, Result, Shape, Tensor};
use serde_json::{Value, json};

/// The weights of a component.
pub(crate) const MODEL_FILE: &str = "diffusion_pytorch_model.safetensors";

/// Writes the configurations of a latent model that trains in no time: 32 x 32 images, 16 x 16 latents.
pub(crate) fn configure(folder: &Path) {
    write(&folder.join("vae/config.json"), &vae());
    write(&folder.join("unet/config.json"), &unet());
}

fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "scaling_factor": 0.8,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    })
}

fn unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": 2,
        "block_out_channels": [8, 16],
        "cross_attention_dim": 8,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "in_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "out_channels": 4,
        "sample_size": 16,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    })
}

fn controlnet() -> Value {
    let mut config = unet();
    config["_class_name"] = json!("ControlNetModel");
    config["conditioning_embedding_out_channels"] = json!([4, 6]);
    config
}

/// A UNet on pixels, with the attention of `UNet2DModel`.
fn pixel_unet() -> Value {
    json!({
        "_class_name": "UNet2DModel",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "downsample_padding": 0,
        "in_channels": 3,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "out_channels": 3,
        "sample_size": 8,
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    })
}

pub(crate) fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{value:#}")).unwrap();
}

/// A model of drawn weights, and its parameters. Outputs of its layers are of the size of their inputs, and norms and
/// biases are not what they begin with.
fn drawn<M>(cx: &Cx, new: impl Fn(&Weights<'_>) -> Result<M>) -> (M, Vec<Parameter>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    write_drawn(file.path(), &new);
    let weights = Weights::open(cx, Checkpoint::open_file(file.path()).unwrap()).trained();
    let model = new(&weights).unwrap();
    (model, weights.parameters())
}

/// Writes the weights of [`drawn`].
fn write_drawn<M>(path: &Path, new: impl Fn(&Weights<'_>) -> Result<M>) {
    let parameters = initial::parameters(|w| new(w)).unwrap();
    let values = |p: &Parameter| -> Vec<u8> {
        let mut random = Philox::new(image_key(&p.name));
        let middle = match is_norm_weight(p) {
            true => 1.0,
            false => 0.0,
        };
        let count = p.shape().iter().product();
        let values = (0..count).map(|_| middle + spread(p) * random.normal());
        values.flat_map(f64::to_le_bytes).collect()
    };
    let all: Vec<_> = parameters
        .iter()
        .map(|p| (p, p.shape(), values(p)))
        .collect();
    let stored: Vec<Stored<'_>> = all
        .iter()
        .map(|(p, shape, bytes)| Stored {
            name: &p.name,
            kind: Kind::F64,
            shape,
            bytes,
        })
        .collect();
    write_safetensors(path, &stored, &[]).unwrap();
}

fn is_norm_weight(p: &Parameter) -> bool {
    p.shape().len() == 1 && p.name.ends_with("weight")
}

/// The size of a parameter's elements: a change of this size changes its layer's output about as much as it is large.
fn spread(p: &Parameter) -> f64 {
    match p.shape()[..] {
        [_] => 0.3,
        [_, ref inputs @ ..] => 1.0 / (inputs.iter().product::<usize>() as f64).sqrt(),
        [] => unreachable!("a parameter has a shape"),
    }
}

fn normals(cx: &Cx, seed: u64, shape: impl Into<Shape>) -> Tensor {
    let (shape, mut random) = (shape.into(), Philox::new(seed));
    let values: Vec<f64> = (0..shape.elements()).map(|_| random.normal()).collect();
    cx.upload(&values, shape).unwrap()
}
