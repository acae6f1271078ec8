//! The values that training starts from: drawn, or taken from another model.

use std::path::Path;

use crate::cx::Cx;
use crate::error::Result;
use crate::io::weights::{Checkpoint, Kind, Stored, write_safetensors};
use crate::nn::param::{Parameter, Weights};
use crate::rng::{Stream, image_key};
use crate::runtime::Runtime;

/// The parameters, without values, of the model that `new` makes.
///
/// # Errors
/// What `new` returns.
pub fn parameters<M>(new: impl FnOnce(&Weights<'_>) -> Result<M>) -> Result<Vec<Parameter>> {
    let cx = Cx::new(Runtime::dry(), crate::DType::F32)?;
    let weights = Weights::planned(&cx).trained();
    new(&weights)?;
    Ok(weights.parameters())
}

/// Writes a model file with first values for `parameters`: `from`'s where that has a tensor of the name and shape; else
/// zero where `zero` says so; else as PyTorch draws them, uniform within `1 / sqrt(fan_in)` for weights of
/// convolutions and linear maps, with biases 0 (PyTorch draws those too); 1 and 0 for norms.
///
/// # Errors
/// [`Error::File`](crate::Error::File) when it cannot be written; what reading `from` returns.
pub fn write(
    path: &Path,
    parameters: &[Parameter],
    seed: u64,
    from: Option<&Checkpoint>,
    zero: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut tensors = Vec::new();
    for p in parameters {
        let shape = p.shape();
        let view = from.and_then(|file| file.get(&p.name));
        let values: Vec<f32> = match view.filter(|view| view.shape == shape) {
            Some(view) => view.to_f32()?,
            None if zero(&p.name) => vec![0.0; shape.iter().product()],
            None => drawn(&p.name, &shape, seed),
        };
        tensors.push((&p.name, shape, values));
    }
    let stored: Vec<Stored<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| Stored {
            name,
            kind: Kind::F32,
            shape,
            bytes: bytemuck::cast_slice(values),
        })
        .collect();
    write_safetensors(path, &stored, &[("format".into(), "pt".into())])
}

/// First values of a parameter, a function of its name and the seed.
fn drawn(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let len = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    match shape.len() {
        1 if name.ends_with("weight") => vec![1.0; len],
        1 => vec![0.0; len],
        _ => {
            let mut values = vec![0.0f32; len];
            Stream::new(seed, image_key(name), 0).uniforms(0, 0, &mut values);
            let bound = 1.0 / (fan_in as f32).sqrt();
            values
                .iter_mut()
                .for_each(|v| *v = bound * (2.0 * *v - 1.0));
            values
        }
    }
}
