//! `plan`: exact bytes, launches and FLOPs of a job, from the model's configurations alone.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use posteriori::models::config::Config;
use posteriori::models::unet::UNetConfig;
use posteriori::models::vae::VaeConfig;
use posteriori::operators::Task;
use posteriori::pipeline::plan::{Batch, Engine, Plan};

use super::exit::DONE;
use super::methods::tasks_and_methods_help;
use super::run::{Run, size};
use super::settings::{Flags, PLAN, Settings};
use super::ui::Ui;

/// Tell a job's memory and work before it runs; reads only the model's configurations
#[derive(Debug, clap::Args)]
#[command(after_help = tasks_and_methods_help())]
pub(super) struct Args {
    #[command(flatten)]
    settings: Flags<PLAN>,
    /// The size of the restored image; by default the model's own
    #[arg(long, value_name = "HxW")]
    size: Option<String>,
}

pub(super) fn run(args: Args, ui: &Ui) -> Result<u8> {
    let mut settings = Settings::gather(&args.settings, None)?;
    let subject = Subject::read(&mut settings, ui)?;
    if args.settings.print {
        super::print_settings(&settings, ui);
        return Ok(DONE);
    }
    let Subject { run, task } = &subject;
    let plan = subject.plan(&run.engine()?, args.size.as_deref())?;
    ui.line(format!("task        {task} by {}", run.preset));
    ui.line(plan.to_string().trim_end());
    ui.record("plan", fields(&plan, task, run));
    Ok(DONE)
}

/// What a plan is of.
pub(super) struct Subject {
    pub(super) run: Run,
    pub(super) task: Task,
}

impl Subject {
    /// Reads the settings; the task is sr8 when none is given.
    pub(super) fn read(settings: &mut Settings, ui: &Ui) -> Result<Self> {
        if settings.text("task").is_none() {
            ui.detail("no --task given: planning for sr8");
            settings.fill("task", "sr8".into(), super::settings::Origin::Default);
        }
        let run = Run::read(settings)?;
        let task = run.task.clone().unwrap_or(Task::super_resolution(8));
        Ok(Subject { run, task })
    }

    /// Plans it for images of this size, by default the model's own.
    pub(super) fn plan(&self, engine: &Engine, size: Option<&str>) -> Result<Plan> {
        self.plan_batch(engine, size, self.run.batch_or_one())
    }

    /// The same for so many at once.
    pub(super) fn plan_batch(
        &self,
        engine: &Engine,
        size: Option<&str>,
        batch: usize,
    ) -> Result<Plan> {
        let Subject { run, task } = self;
        let size = match size {
            Some(text) => self::size(text)?,
            None => own_size(&run.model)?,
        };
        let (job, cse) = (run.job(task, 0)?, run.cse.as_deref());
        let work = Batch {
            measured: true,
            size,
            batch,
        };
        Ok(Plan::of(&run.model, cse, &job, work, engine)?)
    }
}

/// A plan as a record.
pub(super) fn fields(plan: &Plan, task: &Task, run: &Run) -> Value {
    let mut fields = serde_json::to_value(plan).unwrap_or_default();
    fields["task"] = json!(task.to_string());
    fields["method"] = json!(run.preset);
    fields
}

/// A plan as one line.
pub(super) fn line(plan: &Plan, task: &Task) -> String {
    let [h, w] = plan.size;
    let gb = |bytes: f64| bytes / 1e9;
    let tiles = match plan.tile {
        Some(tile) => format!(" in tiles of {tile} (an approximation)"),
        None => String::new(),
    };
    format!(
        "plan: {task}, {h} x {w}{tiles}, batch {}: weights {:.3} GB, slab {:.3} GB, {:.1} TFLOP",
        plan.batch,
        gb(plan.weights as f64),
        gb(plan.slab as f64),
        plan.step.flops as f64 / 1e12 * plan.steps as f64
    )
}

/// The size of the images that a model was trained on.
pub(super) fn own_size(model: &Path) -> posteriori::Result<[usize; 2]> {
    let unet = UNetConfig::read(&Config::open(&model.join("unet"))?)?;
    let vae = model.join("vae");
    let factor = if unet.context.is_some() || vae.is_dir() {
        VaeConfig::read(&Config::open(&vae)?)?.factor()
    } else {
        1
    };
    Ok([unet.sample_size * factor; 2])
}
