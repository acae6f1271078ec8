//! The configuration of a noise predictor that is trained anew, and whether one that is there goes with its model folder.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::models::unet::UNetConfig;
use crate::models::vae::VaeConfig;

/// Channels of pixels.
const PIXELS: usize = 3;

/// The channels of the latents of a model folder; none without an autoencoder.
pub(super) fn latent_channels(folder: &Path) -> Result<Option<usize>> {
    let vae = folder.join("vae");
    match vae.is_dir() {
        true => Ok(Some(VaeConfig::read(&Config::open(&vae)?)?.latent_channels)),
        false => Ok(None),
    }
}

/// `config.json` of a UNet for latents of so many channels, or for pixels.
pub(super) fn unet(latents: Option<usize>) -> Result<String> {
    const OF_LATENTS: &str = include_str!("presets/unet.json");
    let Some(channels) = latents else {
        return Ok(include_str!("presets/unet-pixels.json").into());
    };
    let damaged = |e: serde_json::Error| Error::config("presets/unet.json", e.to_string());
    let mut config: Value = serde_json::from_str(OF_LATENTS).map_err(damaged)?;
    if config["in_channels"] == json!(channels) {
        return Ok(OF_LATENTS.into());
    }
    for key in ["in_channels", "out_channels"] {
        config[key] = json!(channels);
    }
    Ok(format!("{config:#}\n"))
}

/// Refuses a UNet in `component` for other states than those of its model folder.
pub(super) fn expect_unet(component: &Path, latents: Option<usize>) -> Result<()> {
    let UNetConfig {
        in_channels,
        out_channels,
        context,
        ..
    } = UNetConfig::read(&Config::open(component)?)?;
    let want = latents.unwrap_or(PIXELS);
    let fits = [in_channels, out_channels] == [want; 2];
    if fits && (latents.is_some() || context.is_none()) {
        return Ok(());
    }
    let file = component.join("config.json");
    let class = match context {
        Some(_) => "UNet2DConditionModel",
        None => "UNet2DModel",
    };
    let got = format!("{class} of {in_channels} channels in and {out_channels} out");
    let why = match latents {
        Some(_) => {
            format!("wanted {want} channels in and out, as the latents of vae/ have, got a {got}")
        }
        None => format!(
            "there is no vae/ beside it, so it predicts noise of pixels: wanted a UNet2DModel of {want} channels in and out, got a {got}; \
             train the autoencoder of this model folder first, or remove this file for a UNet on pixels"
        ),
    };
    Err(Error::config(file.display().to_string(), why))
}
