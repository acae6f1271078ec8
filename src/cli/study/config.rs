//! The config file of a study.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Table;

use posteriori::operators::Task;
use posteriori::pipeline::job::Restore;
use posteriori::study::{Cell, Study};
use posteriori::train::data::Source;
use posteriori::{Error, Result};

use crate::cli::config;
use crate::cli::run::{MOST, Run, named, number, size, whole};
use crate::cli::settings::{SETTINGS, STUDY, Setting, Settings};

/// Settings that all rows share.
pub(super) const SHARED: [&str; 7] = [
    "model",
    "seed",
    "device",
    "offload",
    "precision",
    "variant",
    "batch",
];
/// The most rows that the lists of one table make.
const MOST_ROWS: usize = 4096;
/// Keys at the top that are no settings.
const OTHERS: [&str; 7] = [
    "input", "scenes", "subset", "tasks", "noise", "sheet", "row",
];

/// What a config file says.
pub(super) struct Config {
    path: String,
    pub(super) images: Images,
    subset: Option<usize>,
    shown: usize,
    tasks: Vec<Task>,
    pub(super) noise: f64,
    /// Settings of all rows.
    common: BTreeMap<String, String>,
    rows: Vec<Row>,
}

/// The true images.
pub(super) enum Images {
    Folder(PathBuf),
    Scenes(Scenes),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenes {
    #[serde(default)]
    seed: u64,
    count: usize,
    size: String,
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Images::Folder(folder) => {
                let name = folder.file_name().unwrap_or(folder.as_os_str());
                write!(f, "folder {}", name.display())
            }
            Images::Scenes(Scenes { seed, size, .. }) => write!(f, "scenes of seed {seed}, {size}"),
        }
    }
}

/// One row of every table.
#[derive(Clone)]
struct Row {
    name: String,
    tasks: Vec<Task>,
    settings: BTreeMap<String, Choice>,
}

/// The value of a row's setting.
#[derive(Clone)]
enum Choice {
    Always(String),
    ByTask(Vec<(Task, String)>),
}

impl Config {
    pub(super) fn parse(path: &str, text: &str) -> Result<Self> {
        let mut keys = Keys {
            place: path.into(),
            table: config::parse(path, text)?,
        };
        let images = match (keys.take("input")?, keys.take("scenes")?) {
            (Some(folder), None) => Images::Folder(folder),
            (None, Some(scenes)) => Images::Scenes(scenes),
            _ => return Err(keys.refuse("wanted either `input` or `scenes`, the true images")),
        };
        if let Images::Scenes(Scenes { count, .. }) = &images
            && !(1..=MOST as usize).contains(count)
        {
            let why = format!("`scenes.count`: wanted at least 1 and at most {MOST}, got {count}");
            return Err(keys.refuse(why));
        }
        let tasks = keys.tasks()?;
        let tasks = tasks.ok_or_else(|| keys.refuse("wanted `tasks`, a list such as [\"sr4\"]"))?;
        let noise = keys.take::<toml::Value>("noise")?;
        let noise = noise.map(|value| number(&keys.single("noise", &value)?));
        let noise = noise.transpose().map_err(|e| match e {
            Error::Argument { why, .. } => keys.refuse(format!("`noise`: {why}")),
            other => other,
        })?;
        let subset = keys.take("subset")?;
        let shown = keys.take("sheet")?.unwrap_or(4);
        let mut rows = Vec::new();
        let tables: Vec<Table> = keys.take("row")?.unwrap_or_default();
        for (i, table) in tables.into_iter().enumerate() {
            let place = format!("{path}, row {}", i + 1);
            Row::parse(Keys { place, table }, &tasks, &mut rows)?;
        }
        let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(keys.refuse(format!("two rows are named `{}`", twice[0])));
        }
        if rows.is_empty() {
            return Err(keys.refuse("wanted rows, each under [[row]]"));
        }
        let mut common = BTreeMap::new();
        for (key, value) in std::mem::take(&mut keys.table) {
            keys.expect(&key, &OTHERS, |_| true)?;
            let text = keys.single(&key, &value)?;
            common.insert(key, text);
        }
        Ok(Config {
            path: path.into(),
            images,
            subset,
            shown,
            tasks,
            noise: noise.unwrap_or(0.0),
            common,
            rows,
        })
    }

    /// The study, and one of its runs, for what all have in common.
    pub(super) fn study(&self) -> Result<(Study, Run)> {
        let mut cells = Vec::new();
        let mut one = None;
        for task in &self.tasks {
            for row in self.rows.iter().filter(|row| row.tasks.contains(task)) {
                let place = format!("{}, row `{}`", self.path, row.name);
                let (job, run) = self.job(task, row, &place).map_err(|e| match e {
                    Error::Argument { name, why } => Error::config(format!("{place}: {name}"), why),
                    other => other,
                })?;
                cells.push(Cell {
                    row: row.name.clone(),
                    job,
                    cse: run.cse.clone(),
                });
                one = Some(run);
            }
        }
        let none = || Error::config(&self.path, "wanted a row and a task, got none");
        let (run, seed) = (one.ok_or_else(none)?, cells[0].job.seed);
        let (all, size) = match &self.images {
            Images::Folder(folder) => (Source::folder(folder)?, [0, 0]),
            Images::Scenes(scenes) => (
                named("scenes", Source::scenes(scenes.seed, scenes.count))?,
                size(&scenes.size)?,
            ),
        };
        let images = match self.subset {
            Some(n) => named("subset", all.subset(n, seed))?,
            None => all,
        };
        let study = Study {
            model: run.model.clone(),
            images,
            size,
            noise: self.noise,
            batch: run.batch_or_one(),
            variants: run.variants.clone(),
            shown: self.shown,
            cells,
        };
        Ok((study, run))
    }

    fn job(&self, task: &Task, row: &Row, place: &str) -> Result<(Restore, Run)> {
        let mut given = self.common.clone();
        for (key, choice) in &row.settings {
            given.insert(key.clone(), choice.of(task, key, place)?);
        }
        let mut settings = Settings::of_file::<STUDY>(&self.path, &given)?;
        let seed = settings.need("seed", |t| whole(t, 0..=u64::MAX))?;
        let run = Run::read(&mut settings)?;
        Ok((run.job(task, seed)?, run))
    }
}

impl Choice {
    fn of(&self, task: &Task, key: &str, place: &str) -> Result<String> {
        let by_task = match self {
            Choice::Always(text) => return Ok(text.clone()),
            Choice::ByTask(by_task) => by_task,
        };
        let found = by_task.iter().find(|(of, _)| of == task);
        found.map(|(_, text)| text.clone()).ok_or_else(|| {
            let why =
                format!("`{key}` has no entry for {task}; add it, or give the row other `tasks`");
            Error::config(place, why)
        })
    }
}

impl Row {
    /// The rows that a table under `[[row]]` makes: one, or one for each value of its lists.
    fn parse(mut keys: Keys, all: &[Task], rows: &mut Vec<Row>) -> Result<()> {
        let name: Option<String> = keys.take("name")?;
        let name = name.ok_or_else(|| keys.refuse("wanted a `name`, got none"))?;
        let tasks = keys.tasks()?.unwrap_or_else(|| all.to_vec());
        if let Some(other) = tasks.iter().find(|task| !all.contains(task)) {
            return Err(keys.refuse(format!("{other} is not among the `tasks` at the top")));
        }
        let mut made = vec![Row {
            name,
            tasks,
            settings: BTreeMap::new(),
        }];
        for (key, value) in std::mem::take(&mut keys.table) {
            if SHARED.contains(&key.as_str()) {
                let why = format!("`{key}` is the same for all rows: it stands at the top");
                return Err(keys.refuse(why));
            }
            keys.expect(&key, &["name", "tasks"], |s| !SHARED.contains(&s.key))?;
            let single = |value: &toml::Value| keys.single(&key, value);
            let choices = match &value {
                toml::Value::Array(list) if list.is_empty() => {
                    let why = format!("`{key}`: wanted a list of at least one value, got none");
                    return Err(keys.refuse(why));
                }
                toml::Value::Array(list) => list.iter().map(single).collect::<Result<Vec<_>>>()?,
                toml::Value::Table(table) => {
                    let entry =
                        |(task, value): (&String, _)| Ok((Task::parse(task)?, single(value)?));
                    let by_task: Result<Vec<_>> = table.iter().map(entry).collect();
                    let by_task = by_task.map_err(|e| keys.refuse(format!("`{key}`: {e}")))?;
                    let choice = Choice::ByTask(by_task);
                    made.iter_mut()
                        .for_each(|row| row.set(&key, choice.clone()));
                    continue;
                }
                value => {
                    let choice = Choice::Always(single(value)?);
                    made.iter_mut()
                        .for_each(|row| row.set(&key, choice.clone()));
                    continue;
                }
            };
            let each = |row: &Row| -> Vec<Row> {
                let with = |value: &String| {
                    let mut row = row.clone();
                    row.name += &format!(", {key} {value}");
                    row.set(&key, Choice::Always(value.clone()));
                    row
                };
                choices.iter().map(with).collect()
            };
            let many = made.len() * choices.len();
            if many > MOST_ROWS {
                let why = format!(
                    "`{key}`: wanted lists of at most {MOST_ROWS} rows together, got {many}"
                );
                return Err(keys.refuse(why));
            }
            made = made.iter().flat_map(each).collect();
        }
        rows.extend(made);
        Ok(())
    }

    fn set(&mut self, key: &str, choice: Choice) {
        self.settings.insert(key.into(), choice);
    }
}

/// The keys of a table that are left to read.
struct Keys {
    place: String,
    table: Table,
}

impl Keys {
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let value = self.table.remove(key).map(toml::Value::try_into);
        value
            .transpose()
            .map_err(|e| self.refuse(format!("`{key}`: {}", e.to_string().trim_end())))
    }

    fn tasks(&mut self) -> Result<Option<Vec<Task>>> {
        let Some(words) = self.take::<Vec<String>>("tasks")? else {
            return Ok(None);
        };
        let tasks: Result<Vec<Task>> = words.iter().map(|word| Task::parse(word)).collect();
        let tasks = tasks.map_err(|e| self.refuse(format!("`tasks`: {e}")))?;
        let twice = |i: &usize| tasks[..*i].contains(&tasks[*i]);
        match (0..tasks.len()).find(twice) {
            Some(i) => Err(self.refuse(format!("`tasks`: {} is there twice", tasks[i]))),
            None if tasks.is_empty() => Err(self.refuse("`tasks`: wanted at least one, got none")),
            None => Ok(Some(tasks)),
        }
    }

    fn single(&self, key: &str, value: &toml::Value) -> Result<String> {
        config::text_of(value).map_err(|why| self.refuse(format!("`{key}`: {why}")))
    }

    /// Fails unless a study takes a setting of this name here; `others` are keys that are no settings.
    fn expect(&self, key: &str, others: &[&str], here: fn(&Setting) -> bool) -> Result<()> {
        let settings = SETTINGS.iter().filter(|s| s.on & STUDY != 0 && here(s));
        let settings = settings.map(|s| s.key);
        if settings.clone().any(|s| s == key) {
            return Ok(());
        }
        let all: Vec<&str> = others.iter().copied().chain(settings).collect();
        Err(self.refuse(format!("wanted one of {}, got `{key}`", all.join(", "))))
    }

    fn refuse(&self, why: impl Into<String>) -> Error {
        Error::config(&self.place, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str =
        "model = 'M'\nscenes = { count = 2, size = '32x32' }\ntasks = ['sr4', 'blur']\n";

    fn study(text: &str) -> Result<Study> {
        Ok(Config::parse("s.toml", &format!("{TOP}{text}"))?.study()?.0)
    }

    #[test]
    fn the_examples_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/studies");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path().display().to_string();
            let text = config::text_of_file(&path).unwrap();
            let mut read = Config::parse(&path, &text).unwrap();
            // The folders are the reader's.
            read.images = Images::Scenes(Scenes {
                seed: 0,
                count: 2000,
                size: "512x512".into(),
            });
            let (study, _) = read.study().unwrap();
            assert!(study.cells.len() >= 2, "{path}");
            count += 1;
        }
        assert_eq!(count, 8);
    }

    #[test]
    fn settings_of_the_top_of_a_row_of_a_task_and_in_a_list() {
        let study = study(
            "steps = 7\nseed = 3\nnoise = 0.1\n[[row]]\nname = 'A'\nmethod = 'dps'\nzeta = { sr4 = 1, blur = 0.5 }\n\
             cse = { blur = 'C', sr4 = 'B' }\n\
             [[row]]\nname = 'B'\nmethod = 'dmap-full'\nsteps = 2\nascents = [1, 4]\ntasks = ['blur']\n",
        )
        .unwrap();
        let cells: Vec<_> = study
            .cells
            .iter()
            .map(|c| {
                let cse = c.cse.as_ref().map(|p| p.display().to_string());
                let job = &c.job;
                (
                    job.task.to_string(),
                    &*c.row,
                    job.method.steps,
                    job.seed,
                    job.method.zeta,
                    cse,
                )
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            cells,
            [
                ("sr4".into(), "A", 7, 3, Some(1.0), some("B")),
                ("blur".into(), "A", 7, 3, Some(0.5), some("C")),
                ("blur".into(), "B, ascents 1", 2, 3, Some(0.6), None),
                ("blur".into(), "B, ascents 4", 2, 3, Some(0.6), None),
            ]
        );
        assert_eq!((study.noise, study.images.count()), (0.1, 2));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let many = format!("{:?}", Vec::from_iter(1..=65));
        for (text, named) in [
            ("", "wanted rows"),
            ("colour = 1\n[[row]]\nname = 'A'", "got `colour`"),
            ("recursive = true\n[[row]]\nname = 'A'", "got `recursive`"),
            (
                "[[row]]\nname = 'A'\nzetta = 1",
                "row 1: wanted one of name, tasks, cse",
            ),
            ("[[row]]\nmethod = 'dps'", "wanted a `name`"),
            ("[[row]]\nname = 'A'\nbatch = 2", "stands at the top"),
            ("[[row]]\nname = 'A'\ntasks = ['sr8']", "sr8 is not among"),
            ("[[row]]\nname = 'A'\ntasks = []", "at least one"),
            (
                "[[row]]\nname = 'A'\n[[row]]\nname = 'A'",
                "two rows are named `A`",
            ),
            (
                "[[row]]\nname = 'A'\nmethod = 'dsp'",
                "row `A`: --method: wanted one of dps",
            ),
            (
                "[[row]]\nname = 'A'\nmethod = 'dps'\nascents = 2",
                "--ascents",
            ),
            ("[[row]]\nname = 'A'\nsteps = -1", "--steps"),
            (
                "[[row]]\nname = 'A'\nzeta = { sr4 = 1 }",
                "`zeta` has no entry for blur",
            ),
            ("[[row]]\nname = 'A'\nzeta = { sr4x = 1 }", "sr4x"),
            ("[[row]]\nname = 'A'\nzeta = [[1]]", "got array"),
            (
                "[[row]]\nname = 'A'\nzeta = []\n[[row]]\nname = 'B'",
                "row 1: `zeta`: wanted a list of at least one value",
            ),
            (
                "noise = -1\n[[row]]\nname = 'A'",
                "`noise`: wanted a number",
            ),
            (
                "input = 'D'\n[[row]]\nname = 'A'",
                "either `input` or `scenes`",
            ),
            ("subset = 3\n[[row]]\nname = 'A'", "1 to 2 images"),
            (
                &format!("[[row]]\nname = 'A'\nzeta = {many}\nsteps = {many}"),
                "`zeta`: wanted lists of at most 4096 rows together, got 4225",
            ),
            ("row = 3", "`row`"),
            ("[[row]", "no valid TOML"),
        ] {
            let error = study(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        let error = |text: &str| Config::parse("s.toml", text).err().unwrap().to_string();
        assert!(error("").contains("either `input` or `scenes`"));
        assert!(error("input = 'D'").contains("wanted `tasks`"));
        assert!(error("input = 'D'\ntasks = ['sr4', 'sr4']").contains("sr4 is there twice"));
        assert!(error("scenes = { cuont = 3 }").contains("cuont"));
    }
}
