//! `CLIPTextModel`: the text encoder. It runs once for a prompt and has no path to the image: its backward pass is for
//! the gradients of its weights.

use crate::cx::{Cx, Kept};
use crate::error::{Error, Result};
use crate::models::config::Config;
use crate::nn::attention::Attention;
use crate::nn::linear::Linear;
use crate::nn::norm::LayerNorm;
use crate::nn::param::{Weights, accumulate};
use crate::ops::activation::{self, Activation};
use crate::ops::{attention, embed, layer_norm};
use crate::tensor::Tensor;

/// The text encoder's `config.json`.
#[derive(Clone, Debug)]
pub struct TextConfig {
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// The feed-forward's activation.
    pub activation: Activation,
    /// Token ids.
    pub vocab_size: usize,
    /// Positions.
    pub positions: usize,
    /// Added to the variance of every norm.
    pub eps: f64,
}

impl TextConfig {
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn read(c: &Config) -> Result<Self> {
        c.expect_class(&["CLIPTextModel", "CLIPTextModelWithProjection"])?;
        let activation = match c.text("hidden_act", "quick_gelu")? {
            "gelu" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            other => return Err(c.wrong("hidden_act", "gelu or quick_gelu", Some(&other.into()))),
        };
        // A prompt begins with one mark and ends with another.
        Ok(TextConfig {
            hidden_size: c.count("hidden_size", Some(512))?,
            intermediate_size: c.count("intermediate_size", Some(2048))?,
            layers: c.layers("num_hidden_layers", Some(12))?,
            heads: c.count("num_attention_heads", Some(8))?,
            activation,
            vocab_size: c.several("vocab_size", Some(49408))?,
            positions: c.several("max_position_embeddings", Some(77))?,
            eps: c.positive("layer_norm_eps", 1e-5)?,
        })
    }
}

/// The text encoder.
#[derive(Debug)]
pub struct TextModel {
    config: TextConfig,
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

/// What [`TextModel::vjp`] needs.
#[derive(Debug)]
pub struct TextSaved {
    layers: Vec<LayerSaved>,
    final_layer_norm: layer_norm::Saved,
}

impl TextModel {
    /// # Errors
    /// [`Error::Weight`] when the weights do not fit the configuration, [`Error::Config`].
    pub fn new(w: &Weights<'_>, config: TextConfig) -> Result<Self> {
        // transformers 5 saves without the prefix.
        let w = if w.has("text_model") {
            w.at("text_model")
        } else {
            w.clone()
        };
        let c = config.hidden_size;
        let embeddings = w.at("embeddings");
        let layer = |i| Layer::new(&w.at("encoder.layers").at(i), &config);
        Ok(TextModel {
            token_embedding: embeddings.get("token_embedding.weight", [config.vocab_size, c])?,
            position_embedding: embeddings
                .get("position_embedding.weight", [config.positions, c])?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(&w.at("final_layer_norm"), c, config.eps)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The context `[n, t, c]` of token ids `[n, t]`: the last hidden state after the final norm.
    ///
    /// # Errors
    /// [`Error::Argument`] when an id is outside the vocabulary or there are more tokens than positions.
    pub fn forward(&self, cx: &Cx, ids: &[i32], samples: usize) -> Result<(Tensor, TextSaved)> {
        let tokens = ids.len() / samples.max(1);
        let vocabulary = 0..self.config.vocab_size as i32;
        if let Some(id) = ids.iter().find(|id| !vocabulary.contains(id)) {
            let why = format!("token {id} is outside the vocabulary of {}", vocabulary.end);
            return Err(Error::argument("prompt", why));
        }
        if tokens * samples != ids.len() || tokens > self.config.positions || tokens == 0 {
            let why = format!(
                "{} ids for {samples} prompts; 1 to {} each",
                ids.len(),
                self.config.positions
            );
            return Err(Error::argument("prompt", why));
        }
        let ids = Tensor::from_slice(cx.rt(), ids, [samples, tokens])?;
        let mut h = embed::tokens(cx, &ids, &self.token_embedding, &self.position_embedding)?;
        cx.keep_input(&self.token_embedding, &ids);
        cx.tap("embeddings", &h);
        let mut layers = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let (y, saved) = layer.forward(cx, h)?;
            cx.tap(&format!("layers.{i}"), &y);
            h = y;
            layers.push(saved);
        }
        let (y, final_layer_norm) = self.final_layer_norm.forward(cx, &h)?;
        let saved = TextSaved {
            layers,
            final_layer_norm,
        };
        Ok((y, saved))
    }

    /// Leaves the gradients of the trained weights, from the cotangent `dy: [n, t, c]` of the context. Returns the
    /// cotangent of the embedded tokens, of the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`]; [`Error::Argument`] after a pass that kept nothing.
    pub fn vjp(&self, cx: &Cx, saved: TextSaved, dy: &Tensor) -> Result<Tensor> {
        let mut dh = self
            .final_layer_norm
            .vjp(cx, saved.final_layer_norm, dy, None)?;
        for (layer, saved) in self.layers.iter().zip(saved.layers).rev() {
            dh = layer.vjp(cx, saved, dh)?;
        }
        if let Some(ids) = cx.kept_input(&self.token_embedding)? {
            let TextConfig {
                vocab_size,
                positions,
                ..
            } = self.config;
            let (dtable, dpositions) = embed::wgrad(cx, &ids, &dh, vocab_size, positions)?;
            accumulate(cx, &self.token_embedding, dtable)?;
            accumulate(cx, &self.position_embedding, dpositions)?;
        }
        Ok(dh)
    }
}

/// `encoder.layers.{i}`.
#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

#[derive(Debug)]
struct LayerSaved {
    layer_norm1: layer_norm::Saved,
    self_attn: attention::Saved,
    layer_norm2: layer_norm::Saved,
    hidden: Kept,
}

impl Layer {
    fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
        let (c, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Layer {
            layer_norm1: LayerNorm::new(&w.at("layer_norm1"), c, config.eps)?,
            self_attn: Attention::causal(&w.at("self_attn"), c, config.heads)?,
            layer_norm2: LayerNorm::new(&w.at("layer_norm2"), c, config.eps)?,
            fc1: Linear::new(&w.at("mlp.fc1"), c, inner, true)?,
            fc2: Linear::new(&w.at("mlp.fc2"), inner, c, true)?,
            activation: config.activation,
        })
    }

    fn forward(&self, cx: &Cx, mut x: Tensor) -> Result<(Tensor, LayerSaved)> {
        let (h, layer_norm1) = self.layer_norm1.forward(cx, &x)?;
        let (y, self_attn) = self.self_attn.forward(cx, &h, None, &x)?;
        x = y;
        let (h, layer_norm2) = self.layer_norm2.forward(cx, &x)?;
        let hidden = self.fc1.forward(cx, &h, None)?;
        let h = activation::forward(cx, &hidden, self.activation)?;
        let y = self.fc2.forward(cx, &h, Some(&x))?;
        let saved = LayerSaved {
            layer_norm1,
            self_attn,
            layer_norm2,
            hidden: cx.keep(&hidden),
        };
        Ok((y, saved))
    }

    fn vjp(&self, cx: &Cx, saved: LayerSaved, mut dy: Tensor) -> Result<Tensor> {
        let mut dh = self.fc2.vjp(cx, &dy)?;
        dh = activation::vjp(cx, saved.hidden.get()?, self.activation, &dh)?;
        dh = self.fc1.vjp(cx, &dh)?;
        dy = self
            .layer_norm2
            .vjp(cx, saved.layer_norm2, &dh, Some(&dy))?;
        dh = self.self_attn.vjp(cx, saved.self_attn, &dy)?;
        self.layer_norm1.vjp(cx, saved.layer_norm1, &dh, Some(&dy))
    }
}
