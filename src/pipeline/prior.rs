//! [`Prior`]: the models of one checkpoint folder, and the forms in which samplers see them.

use std::path::{Path, PathBuf};

use crate::cx::Cx;
use crate::diffusion::prior::{Codec, Denoiser, Pixels, Pullback};
use crate::diffusion::schedule::Schedule;
use crate::error::{Error, Result};
use crate::io::weights::Checkpoint;
use crate::models::config::Config;
use crate::models::controlnet::{ControlNet, ControlNetConfig};
use crate::models::text::{TextConfig, TextModel};
use crate::models::tokenizer::{self, CONTEXT, Tokenizer};
use crate::models::unet::{Features, UNet, UNetConfig};
use crate::models::vae::{Vae, VaeConfig};
use crate::nn::param::Weights;
use crate::ops::{add, cast, combine};
use crate::rng::{digest, image_key, mix64};
use crate::tensor::Tensor;

/// A checkpoint folder in diffusers' layout: `unet/`, `scheduler/`, and for latent models `vae/`,
/// `text_encoder/`, `tokenizer/`.
#[derive(Debug)]
pub struct Prior {
    folder: PathBuf,
    /// The noise predictor.
    pub unet: UNet,
    /// The autoencoder of latent models.
    pub vae: Option<Vae>,
    /// The noise schedule.
    pub schedule: Schedule,
    /// Names of tensors in the files that no model asked for.
    pub unread: Vec<String>,
}

impl Prior {
    /// Loads UNet, schedule and, if there is one, the autoencoder.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Config`], [`Error::Weight`], each naming what is wrong.
    pub fn open(cx: &Cx, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            let why = "no such folder; wanted a checkpoint folder in diffusers' layout (unet/, scheduler/, ..)";
            return Err(Error::file(folder, why));
        }
        let mut unread = Vec::new();
        let unet_folder = folder.join("unet");
        let config = UNetConfig::read(&Config::open(&unet_folder)?)?;
        let unet = load(cx, &unet_folder, &mut unread, |w| UNet::new(w, config))?;
        let vae_folder = folder.join("vae");
        let vae = if unet.config().context.is_some() || vae_folder.is_dir() {
            let config = VaeConfig::read(&Config::open(&vae_folder)?)?;
            Some(load(cx, &vae_folder, &mut unread, |w| Vae::new(w, config))?)
        } else {
            None
        };
        let schedule = Schedule::open(folder.join("scheduler").join("scheduler_config.json"))?;
        Ok(Prior {
            folder: folder.to_owned(),
            unet,
            vae,
            schedule,
            unread,
        })
    }

    /// The folder this was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Both sides of the images that it makes are multiples of this.
    pub fn multiple(&self) -> usize {
        self.unet.config().factor() * self.pixels_per_state()
    }

    /// The side of the images that it was trained on.
    pub fn own_side(&self) -> usize {
        self.unet.config().sample_size * self.pixels_per_state()
    }

    /// Image pixels for each pixel of a state, along each side.
    pub fn pixels_per_state(&self) -> usize {
        self.vae.as_ref().map_or(1, |vae| vae.config().factor())
    }

    /// Whether it can work in tiles of this side.
    ///
    /// # Errors
    /// [`Error::Argument`] saying which sides it can.
    pub fn check_tile(&self, side: usize) -> Result<()> {
        let multiple = self.multiple();
        if side >= 2 * multiple && side.is_multiple_of(multiple) {
            return Ok(());
        }
        let least = 2 * multiple;
        let why = format!(
            "wanted the side of a tile to be a multiple of {multiple}, at least {least}, for this model, got {side}"
        );
        Err(Error::argument("--tile", why))
    }

    /// The codec of this prior.
    pub fn codec(&self) -> Box<dyn Codec + '_> {
        match &self.vae {
            Some(vae) => Box::new(Latents { vae }),
            None => Box::new(Pixels),
        }
    }

    /// The text context `[1, t, c]` of a prompt; `None` when this prior takes none.
    ///
    /// The text encoder is loaded, run once and dropped; the context outlives every step. Without a `tokenizer/` folder only the empty
    /// prompt is known: begin, end, padding. A model whose `model_index.json` lists no text encoder was trained without
    /// prompts: its context is one token of zeros.
    ///
    /// # Errors
    /// [`Error::File`] when the text encoder is missing, or a prompt is given that cannot be tokenised.
    pub fn context(&self, cx: &Cx, prompt: &str) -> Result<Option<Tensor>> {
        let width = self.unet.config().context;
        width
            .map(|width| context(cx, &self.folder, width, prompt))
            .transpose()
    }
}

/// The text context `[1, t, width]` of a prompt by the text encoder of a checkpoint folder: see [`Prior::context`].
///
/// # Errors
/// As there.
pub fn context(cx: &Cx, folder: &Path, width: usize, prompt: &str) -> Result<Tensor> {
    if !has_text_encoder(folder)? {
        if !prompt.is_empty() {
            let why = "this model has no text encoder, so it takes no prompt but the empty one";
            return Err(Error::argument("--prompt", why));
        }
        return cx.constant(&vec![0.0; width], [1, 1, width]);
    }
    if !cx.rt().computes() {
        return cx.constant(&vec![0.0; CONTEXT * width], [1, CONTEXT, width]);
    }
    let own = folder.join("text_encoder");
    let config = TextConfig::read(&Config::open(&own)?)?;
    let ids = prompt_ids(folder, &config, prompt)?;
    let text = load(cx, &own, &mut Vec::new(), |w| TextModel::new(w, config))?;
    let (context, _) = text.forward(&cx.forward_only(), &ids, 1)?;
    cx.constant(&context.to_f64()?, context.shape())
}

/// A number made of a component folder's configuration and of the names, shapes and values of its weights: others have, but for a
/// chance of 2^-64, another.
///
/// # Errors
/// What opening the folder returns; [`Error::File`] when the configuration cannot be read.
pub fn fingerprint(folder: &Path) -> Result<u64> {
    let file = Checkpoint::open(folder)?;
    let mut hash = of_text(&folder.join("config.json"))?;
    for view in file.names().filter_map(|name| file.get(name)) {
        let head = format!("{} {:?} {:?}", view.name, view.dtype, view.shape);
        hash = digest(mix64(hash ^ image_key(&head)), view.bytes);
    }
    Ok(hash)
}

/// The [`fingerprint`]s of a model folder's components and the texts of its schedule and tokenizer, as one number.
///
/// # Errors
/// What opening a component returns; [`Error::File`] when a text cannot be read.
pub fn model_fingerprint(folder: &Path) -> Result<u64> {
    let schedule = folder.join("scheduler").join("scheduler_config.json");
    let mut hash = of_text(&schedule)?;
    let mut add = |of: u64| hash = mix64(hash ^ of);
    for component in ["unet", "vae", "text_encoder"].map(|name| folder.join(name)) {
        if component.is_dir() {
            add(fingerprint(&component)?);
        }
    }
    for file in tokenizer::FILES.map(|name| folder.join("tokenizer").join(name)) {
        if file.is_file() {
            add(of_text(&file)?);
        }
    }
    Ok(hash)
}

/// A number made of the bytes of a small file.
fn of_text(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    Ok(digest(bytes.len() as u64, &bytes))
}

/// Whether a model folder has a text encoder, or should: one without says so in its `model_index.json`.
fn has_text_encoder(folder: &Path) -> Result<bool> {
    let index = folder.join("model_index.json");
    if folder.join("text_encoder").is_dir() || !index.is_file() {
        return Ok(true);
    }
    let unreadable = |why: String| Error::file(&index, format!("cannot be read as JSON: {why}"));
    let text = std::fs::read_to_string(&index).map_err(|e| unreadable(e.to_string()))?;
    let index: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    let encoder = &index["text_encoder"];
    Ok(!(encoder.is_null() || encoder.get(0).is_some_and(serde_json::Value::is_null)))
}

/// Loads one component and adds what was left unread to `unread`.
///
/// # Errors
/// What the checkpoint or the model's `new` returns.
pub fn load<M>(
    cx: &Cx,
    folder: &Path,
    unread: &mut Vec<String>,
    new: impl FnOnce(&Weights<'_>) -> Result<M>,
) -> Result<M> {
    if !cx.rt().computes() {
        return new(&Weights::planned(cx, Checkpoint::open(folder).ok()));
    }
    let component = folder
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let weights = Weights::open(cx, Checkpoint::open(folder)?);
    let model = new(&weights).map_err(|error| match error {
        Error::Weight { name, why } => Error::weight(format!("{component}/{name}"), why),
        other => other,
    })?;
    // Old text encoders store the positions 0..77 as a tensor.
    let left = weights
        .unread()
        .into_iter()
        .filter(|name| !name.ends_with("position_ids"));
    unread.extend(left.map(|name| format!("{component}/{name}")));
    Ok(model)
}

/// Loads a ControlNet: a folder with `config.json` and weights.
///
/// # Errors
/// As [`Prior::open`]; [`Error::Config`] when its widths are not those of `unet`.
pub fn open_controlnet(
    cx: &Cx,
    folder: &Path,
    unet: &UNet,
    unread: &mut Vec<String>,
) -> Result<ControlNet> {
    let config = ControlNetConfig::read(&Config::open(folder)?)?;
    let keys = |c: &UNetConfig| {
        [
            ("block_out_channels", format!("{:?}", c.block_out_channels)),
            ("layers_per_block", c.layers_per_block.to_string()),
            ("cross_attention_dim", format!("{:?}", c.context)),
        ]
    };
    for ((key, own), (_, of_unet)) in keys(&config.unet).into_iter().zip(keys(unet.config())) {
        if own != of_unet {
            let why = format!("this ControlNet has {key} {own}, the model's UNet {of_unet}");
            return Err(Error::config(folder.display().to_string(), why));
        }
    }
    load(cx, folder, unread, |w| ControlNet::new(w, &config))
}

fn prompt_ids(folder: &Path, config: &TextConfig, prompt: &str) -> Result<Vec<i32>> {
    let tokenizer = folder.join("tokenizer");
    if tokenizer.is_dir() {
        return Ok(Tokenizer::open(&tokenizer)?.encode(prompt));
    }
    if !prompt.is_empty() {
        return Err(Error::file(
            tokenizer,
            "no tokenizer, so no prompt but the empty one can be encoded",
        ));
    }
    // CLIP's vocabulary ends with the begin and end marks; SD 2 (erf GELU) pads with id 0, SD 1 with the end.
    let end = config.vocab_size as i32 - 1;
    let pad = if config.activation == crate::ops::activation::Activation::Gelu {
        0
    } else {
        end
    };
    let mut ids = vec![pad; config.positions];
    ids[..2].copy_from_slice(&[end - 1, end]);
    Ok(ids)
}

/// The latent space of an autoencoder, multiplied by its scaling factor.
#[derive(Clone, Copy, Debug)]
pub struct Latents<'m> {
    /// The autoencoder.
    pub vae: &'m Vae,
}

impl Codec for Latents<'_> {
    fn state_shape(&self, [n, h, w, c]: [usize; 4]) -> Result<[usize; 4]> {
        let config = self.vae.config();
        let factor = config.factor();
        if c != config.in_channels || h == 0 || w == 0 || h % factor != 0 || w % factor != 0 {
            let want = format!(
                "[n, h, w, {}] with h and w multiples of {factor}",
                config.in_channels
            );
            return Err(Error::shape("image", want, format!("[{n}, {h}, {w}, {c}]")));
        }
        Ok([n, h / factor, w / factor, config.latent_channels])
    }

    fn decode(&self, cx: &Cx, x0: &Tensor) -> Result<Tensor> {
        let net = &cx.network().forward_only();
        let z = combine::forward(cx, &[(1.0 / self.vae.config().scaling_factor, x0)])?;
        Ok(self.vae.decode(net, &stored(net, &z)?)?.0)
    }

    fn decode_vjp<'a>(&'a self, cx: &'a Cx, x0: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let (net, scale) = (cx.network(), 1.0 / self.vae.config().scaling_factor);
        let z = combine::forward(cx, &[(scale, x0)])?;
        let (image, saved) = self.vae.decode(&net, &stored(&net, &z)?)?;
        let pull = move |dy: &Tensor| {
            let dz = self.vae.decode_vjp(&net, saved, &stored(&net, dy)?)?;
            combine::forward(cx, &[(scale, &widened(cx, &dz)?)])
        };
        Ok((image, Box::new(pull)))
    }

    fn encode_vjp<'a>(&'a self, cx: &'a Cx, image: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let (net, scale) = (cx.network(), self.vae.config().scaling_factor);
        let (mean, logvar, saved) = self.vae.encode(&net, &stored(&net, image)?)?;
        let pull = move |dy: &Tensor| {
            let dmean = stored(&net, &combine::forward(cx, &[(scale, dy)])?)?;
            let dlogvar = combine::forward(&net, &[(0.0, &logvar)])?;
            widened(cx, &self.vae.encode_vjp(&net, saved, &dmean, &dlogvar)?)
        };
        let mean = widened(cx, &mean)?;
        Ok((combine::forward(cx, &[(scale, &mean)])?, Box::new(pull)))
    }
}

/// A sampler's tensor as the networks store theirs.
///
/// # Errors
/// [`Error::Plan`] when there is no room.
pub fn stored(net: &Cx, x: &Tensor) -> Result<Tensor> {
    cast::forward(net, x, net.dtype())
}

/// A network's tensor as samplers see it.
fn widened(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    cast::forward(cx, x, cx.dtype())
}

/// A UNet with a fixed text context as a denoiser.
#[derive(Clone, Copy, Debug)]
pub struct Unguided<'m> {
    /// The network.
    pub unet: &'m UNet,
    /// `[n or 1, t, c]`.
    pub context: Option<&'m Tensor>,
}

impl Denoiser for Unguided<'_> {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let net = &cx.network().forward_only();
        Ok(self
            .unet
            .forward(net, &stored(net, x)?, t, self.context, None)?
            .0)
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let net = cx.network();
        let (y, saved) = self
            .unet
            .forward(&net, &stored(&net, x)?, t, self.context, None)?;
        let pull = move |dy: &Tensor| {
            let (dx, _) = self.unet.vjp(&net, saved, &stored(&net, dy)?, false)?;
            widened(cx, &dx)
        };
        Ok((y, Box::new(pull)))
    }
}

/// A UNet with a ControlNet: the conditional score estimator (CSE). Gradients flow through both.
#[derive(Clone, Copy, Debug)]
pub struct Conditional<'m> {
    /// The network.
    pub unet: &'m UNet,
    /// `[n or 1, t, c]`.
    pub context: Option<&'m Tensor>,
    /// The conditional half.
    pub controlnet: &'m ControlNet,
    /// The embedded hint, `[n, h, w, c]`: see [`ControlNet::embed_hint`].
    pub hint: &'m Tensor,
    /// What the residuals are multiplied by.
    pub scale: f64,
}

impl Conditional<'_> {
    fn scaled(&self, cx: &Cx, f: Features) -> Result<Features> {
        if self.scale == 1.0 {
            return Ok(f);
        }
        let scaled = |t: &Tensor| combine::forward(cx, &[(self.scale, t)]);
        Ok(Features {
            skips: f.skips.iter().map(scaled).collect::<Result<_>>()?,
            mid: scaled(&f.mid)?,
        })
    }
}

impl Denoiser for Conditional<'_> {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let net = &cx.network().forward_only();
        let x = &stored(net, x)?;
        let (residuals, _) = self
            .controlnet
            .forward(net, x, t, self.context, self.hint)?;
        let residuals = self.scaled(net, residuals)?;
        Ok(self
            .unet
            .forward(net, x, t, self.context, Some(&residuals))?
            .0)
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let net = cx.network();
        let x = &stored(&net, x)?;
        let (residuals, control) = self
            .controlnet
            .forward(&net, x, t, self.context, self.hint)?;
        let residuals = self.scaled(&net, residuals)?;
        let (y, saved) = self
            .unet
            .forward(&net, x, t, self.context, Some(&residuals))?;
        let pull = move |dy: &Tensor| {
            let (dx, dresiduals) = self.unet.vjp(&net, saved, &stored(&net, dy)?, true)?;
            let dresiduals = self.scaled(&net, dresiduals.expect("asked for with `true`"))?;
            let (through, _) = self.controlnet.vjp(&net, control, dresiduals)?;
            widened(cx, &add::forward(&net, &dx, &through)?)
        };
        Ok((y, Box::new(pull)))
    }
}

/// The embedding of a condition image as [`Conditional::hint`].
///
/// # Errors
/// [`Error::Shape`].
pub fn hint(cx: &Cx, controlnet: &ControlNet, image: &Tensor) -> Result<Tensor> {
    let net = &cx.network();
    Ok(controlnet
        .embed_hint(&net.forward_only(), &stored(net, image)?)?
        .0)
}
