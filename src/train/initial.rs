//! The values that training starts from: drawn, or taken from another model.

use std::borrow::Cow;
use std::path::Path;

use crate::cx::Cx;
use crate::error::Result;
use crate::io::weights::{Checkpoint, Head, Kind, write_one_by_one};
use crate::nn::param::{Parameter, Weights};
use crate::rng::{Stream, image_key};
use crate::runtime::Runtime;

/// The parameters, without values, of the model that `new` makes.
///
/// # Errors
/// What `new` returns.
pub fn parameters<M>(new: impl FnOnce(&Weights<'_>) -> Result<M>) -> Result<Vec<Parameter>> {
    let cx = Cx::new(Runtime::dry(), crate::DType::F32)?;
    let weights = Weights::planned(&cx, None).trained();
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
    let head = |p: &Parameter| Head {
        name: p.name.clone(),
        kind: Kind::F32,
        shape: p.shape(),
    };
    let heads: Vec<Head> = parameters.iter().map(head).collect();
    let about = [("format".into(), "pt".into())];
    write_one_by_one(path, &heads, &about, |i| {
        let Head { name, shape, .. } = &heads[i];
        let view = from.and_then(|file| file.get(name));
        let values = match view.filter(|view| view.shape == *shape) {
            Some(view) => view.to_f32()?,
            None if zero(name) => vec![0.0; shape.iter().product()],
            None => drawn(name, shape, seed),
        };
        Ok(Cow::Owned(bytemuck::cast_slice(&values).to_vec()))
    })
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
