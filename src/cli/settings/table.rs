//! The table of settings.

/// The commands that take a setting, as bits.
pub(crate) const RESTORE: u8 = 1;
pub(crate) const PLAN: u8 = 2;
pub(crate) const GENERATE: u8 = 4;
pub(crate) const DEGRADE: u8 = 8;
pub(crate) const STUDY: u8 = 16;
pub(crate) const DIAGNOSE: u8 = 32;
pub(crate) const SCORE_ERROR: u8 = 64;
pub(crate) const SCORE_MEAN: u8 = 128;

const MEASURED: u8 = RESTORE | PLAN | STUDY | DIAGNOSE;
pub(super) const SAMPLING: u8 = MEASURED | GENERATE;
/// Those that ask models without sampling by a method.
const SCORES: u8 = SCORE_ERROR | SCORE_MEAN;
const WRITING: u8 = RESTORE | GENERATE | DEGRADE;

/// One setting.
pub(crate) struct Setting {
    /// Its name: `--key`, `--set key=..`, `key = ..` in the config file.
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) doc: &'static str,
    /// Used when nothing else gives a value; empty for none.
    pub(super) default: &'static str,
    pub(crate) on: u8,
}

const fn setting(
    key: &'static str,
    value: &'static str,
    default: &'static str,
    on: u8,
    doc: &'static str,
) -> Setting {
    Setting {
        key,
        value,
        doc,
        default,
        on,
    }
}

/// Every setting.
pub(crate) static SETTINGS: &[Setting] = &[
    setting(
        "model",
        "DIR",
        "",
        SAMPLING | SCORES,
        "the checkpoint folder, in diffusers' layout; `embedded` is the small model that ships with the program",
    ),
    setting(
        "cse",
        "DIR",
        "",
        MEASURED | SCORES,
        "a ControlNet folder: the conditional score estimator; `embedded` is the one for sr4",
    ),
    setting(
        "task",
        "TASK",
        "",
        RESTORE | PLAN | DEGRADE | DIAGNOSE | SCORES,
        "what was done to the images: see below",
    ),
    setting(
        "method",
        "METHOD",
        "dmap",
        MEASURED,
        "the algorithm and its settings: see below",
    ),
    setting(
        "tile",
        "auto|never|SIDE",
        "auto",
        SAMPLING,
        "work on large images whole (never), or in overlapping tiles of this side, an approximation that takes less memory; \
         auto: whole where that fits, else in tiles of the model's own size",
    ),
    setting("steps", "N", "", SAMPLING | SCORES, "sampling steps, T"),
    setting(
        "zeta",
        "X",
        "",
        MEASURED,
        "step size of guidance, for dsg its rate, 0 to 1; by default the authors' for task and method",
    ),
    setting(
        "zeta-space",
        "ve|vp",
        "",
        MEASURED,
        "the coordinates that zeta is meant in",
    ),
    setting(
        "ascents",
        "K",
        "",
        MEASURED,
        "gradient steps at each sampling step, for dmap; how often freedom takes a step of its window",
    ),
    setting(
        "project",
        "each|last",
        "",
        MEASURED,
        "which ascents end on the sphere, for dmap",
    ),
    setting(
        "follow",
        "RULE",
        "",
        MEASURED,
        "what guidance follows: plain, the gradient; norm, momentum[:BETA] or adam[:BETA1:BETA2] of it",
    ),
    setting(
        "interval",
        "N",
        "",
        MEASURED,
        "guidance at every so many steps, for dsg",
    ),
    setting(
        "gamma",
        "X",
        "",
        MEASURED,
        "what the gluing loss counts against the other, for psld",
    ),
    setting(
        "window",
        "C1..C2",
        "",
        MEASURED,
        "the steps that freedom repeats, from the noisy end; auto is a fifth to a half of the run",
    ),
    setting(
        "every",
        "N",
        "",
        MEASURED,
        "after how many steps resample solves; auto is a tenth of the run",
    ),
    setting(
        "stages",
        "latent|pixel|both",
        "",
        MEASURED,
        "where resample solves; both: on pixels in the second third of the run, on latents in the last",
    ),
    setting(
        "iterations",
        "K",
        "",
        MEASURED,
        "steps of descent of a resampling, for resample",
    ),
    setting(
        "rate",
        "X",
        "",
        MEASURED,
        "the size of a step of descent, for resample",
    ),
    setting(
        "descent",
        "gradient|adam",
        "",
        MEASURED,
        "how resample descends",
    ),
    setting(
        "strength",
        "X",
        "",
        MEASURED,
        "the factor of resample's eta",
    ),
    setting(
        "blend",
        "original|printed",
        "",
        MEASURED,
        "how resample combines solution and state: as its authors, or as the paper prints it",
    ),
    setting(
        "spacing",
        "SPACING",
        "",
        SAMPLING,
        "fractional, linspace, leading or trailing timesteps",
    ),
    setting("solver", "SOLVER", "", SAMPLING, "ancestral, or ddim[:ETA]"),
    setting(
        "cse-scale",
        "X",
        "1",
        MEASURED,
        "what the ControlNet's residuals are multiplied by",
    ),
    setting(
        "prompt",
        "TEXT",
        "",
        SAMPLING,
        "the text prompt; empty by default, as in the paper",
    ),
    setting(
        "seed",
        "N",
        "0",
        WRITING | STUDY | DIAGNOSE | SCORES,
        "the seed of all noise",
    ),
    setting(
        "samples",
        "N",
        "1",
        RESTORE,
        "restorations of each image, named x-s0, x-s1, ..",
    ),
    setting(
        "device",
        "auto|cpu|cuda:N[,M]",
        "auto",
        RESTORE | GENERATE | STUDY | DIAGNOSE | SCORES,
        "where to compute; auto takes the first GPU that can be used, cuda:0,1 shares a folder between two",
    ),
    setting(
        "offload",
        "DIR",
        "",
        RESTORE | GENERATE | STUDY | DIAGNOSE | SCORES,
        "on processors, keep weights in files of this folder instead of memory; they have no names and end with the run, \
         whose results are the same. It should be on a disk",
    ),
    setting(
        "precision",
        "bf16|f16|f32|f64",
        "",
        SAMPLING | SCORES,
        "element type of the networks; bf16 by default on a GPU, else f32 (f64 is for checks); on processors bf16 is only what products are of: faster where there are instructions for it",
    ),
    setting(
        "variant",
        "OP=NAME",
        "",
        SAMPLING,
        "take this variant of an op wherever it fits; repeatable, or several with commas",
    ),
    setting(
        "batch",
        "auto|N",
        "auto",
        SAMPLING | SCORE_MEAN,
        "images sampled together, which never changes a result; auto: for restore on a GPU as many as fit, up to 16, else 1",
    ),
    setting(
        "recursive",
        "true|false",
        "false",
        RESTORE | DEGRADE,
        "also the folders inside the input folder",
    ),
    setting(
        "exists",
        "skip|overwrite|error",
        "skip",
        WRITING,
        "what to do when an output is there already",
    ),
    setting(
        "on-error",
        "continue|stop",
        "continue",
        RESTORE | DEGRADE,
        "whether to go on after an item failed",
    ),
    setting(
        "format",
        "keep|png|png16|jpg:95|webp|tiff",
        "",
        WRITING,
        "the format to write; restore keeps the input's where that is jpg, webp or png (of 8 bits), else writes png; degrade writes \
         png16, and tiff, floats as measured, for phase; generate writes png, or what the name after -o says",
    ),
];
