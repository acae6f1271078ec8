//! Settings: one table of them; their values come from a flag, `--set`, the config file, the method's
//! preset or a default, in this order, and each knows where it came from.
//!
//! To add one: its row in [`SETTINGS`], and its line in `run.rs` or, of a method's own, in `methods.rs`, which read it.

mod table;

use std::collections::BTreeMap;
use std::fmt;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Value, json};

use posteriori::operators::Task;
use posteriori::pipeline::job::Method;
use posteriori::{Error, Result};

use super::{config, methods};
use table::SAMPLING;
pub(crate) use table::{
    DEGRADE, DIAGNOSE, GENERATE, PLAN, RESTORE, SCORE_ERROR, SCORE_MEAN, SETTINGS, STUDY, Setting,
};

impl Setting {
    fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|s| s.key == key)
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.key)
            .long(self.key)
            .value_name(self.value)
            .help(self.doc)
            // So that `--steps -3` is told what is wrong with -3.
            .allow_negative_numbers(true);
        match self.key {
            "variant" => arg.action(clap::ArgAction::Append),
            "recursive" => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg,
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    Default,
    Preset(String),
    File(String),
    Set,
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Preset(name) => write!(f, "preset {name}"),
            Origin::File(path) => write!(f, "from {path}"),
            Origin::Set => f.write_str("--set"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// The settings given on the command line of the commands `ON`.
#[derive(Clone, Debug)]
pub(crate) struct Flags<const ON: u8> {
    flags: Vec<(&'static str, String)>,
    sets: Vec<String>,
    config: Option<String>,
    /// Whether to print the settings and stop.
    pub(crate) print: bool,
}

impl<const ON: u8> Args for Flags<ON> {
    fn augment_args(command: Command) -> Command {
        let here = SETTINGS.iter().filter(|s| s.on & ON != 0);
        command
            .args(here.map(Setting::arg))
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .help("a TOML file of settings; what other commands take is ignored"),
            )
            .arg(
                Arg::new("set")
                    .long("set")
                    .value_name("KEY=VALUE")
                    .action(clap::ArgAction::Append)
                    .help("a setting, before the config file and after flags"),
            )
            .arg(
                Arg::new("print-config")
                    .long("print-config")
                    .action(clap::ArgAction::SetTrue)
                    .help("print every setting and where it came from, and stop"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ON: u8> FromArgMatches for Flags<ON> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |key| matches.get_one::<String>(key).cloned();
        let texts = |key| {
            let all: Vec<String> = matches.get_many(key)?.cloned().collect();
            Some(all.join(","))
        };
        let here = SETTINGS.iter().filter(|s| s.on & ON != 0);
        Ok(Flags {
            flags: here.filter_map(|s| Some((s.key, texts(s.key)?))).collect(),
            sets: matches
                .get_many::<String>("set")
                .map(|all| all.cloned().collect())
                .unwrap_or_default(),
            config: text("config"),
            print: matches.get_flag("print-config"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values in force.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Settings {
    /// Lays the sources over each other. `method` is the preset of commands that have no `--method`.
    pub(crate) fn gather<const ON: u8>(flags: &Flags<ON>, method: Option<&str>) -> Result<Self> {
        let mut values = BTreeMap::new();
        if let Some(path) = &flags.config {
            for (key, value) in config::read(path)? {
                let setting = known(&key, path)?;
                if setting.on & ON != 0 {
                    values.insert(setting.key, (value, Origin::File(path.clone())));
                }
            }
        }
        for pair in &flags.sets {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Error::argument("--set", format!("wanted KEY=VALUE, got `{pair}`"))
            })?;
            let setting = known(key.trim(), "--set")?;
            if setting.on & ON == 0 {
                let why = format!("`{}` is a setting of other commands", setting.key);
                return Err(Error::argument("--set", why));
            }
            values.insert(setting.key, (value.trim().into(), Origin::Set));
        }
        for (key, value) in &flags.flags {
            values.insert(*key, (value.clone(), Origin::Flag));
        }
        let settings = Self::complete::<ON>(values, method)?;
        // A file may have it from `--print-config`, which prints all settings.
        let scale = settings.values.get("cse-scale");
        let asked = matches!(scale, Some((_, Origin::Flag | Origin::Set)));
        if asked && settings.text("cse").is_none() {
            let why = "there is no ControlNet for it to scale; --cse names one";
            return Err(settings.refuse("cse-scale", why.into()));
        }
        Ok(settings)
    }

    /// Those of the keys `given` in a file that the command `ON` takes, over presets and defaults.
    pub(crate) fn of_file<const ON: u8>(
        path: &str,
        given: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (key, value) in given {
            values.insert(
                known(key, path)?.key,
                (value.clone(), Origin::File(path.into())),
            );
        }
        Self::complete::<ON>(values, None)
    }

    /// Puts defaults and the method's preset under the values.
    fn complete<const ON: u8>(
        mut values: BTreeMap<&'static str, (String, Origin)>,
        method: Option<&str>,
    ) -> Result<Self> {
        for setting in SETTINGS
            .iter()
            .filter(|s| s.on & ON != 0 && !s.default.is_empty())
        {
            let default = || (setting.default.to_owned(), Origin::Default);
            values.entry(setting.key).or_insert_with(default);
        }
        let mut settings = Settings { values };
        if ON & SAMPLING != 0 {
            let name = settings
                .text("method")
                .or(method)
                .unwrap_or("ancestral")
                .to_owned();
            let preset = settings.wrap("method", Method::preset(&name))?;
            settings.lay_under(&name, &preset);
        }
        Ok(settings)
    }

    /// What the preset says, where nothing else does; refuses what the method has no use for.
    fn lay_under(&mut self, name: &str, preset: &Method) {
        for (key, value) in methods::describe(preset) {
            let origin = Origin::Preset(name.into());
            self.values.entry(key).or_insert((value, origin));
        }
    }

    /// The value of a setting.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(value, _)| value.as_str())
    }

    /// The settings that somebody gave.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static str> + '_ {
        let given = |origin: &Origin| !matches!(origin, Origin::Default | Origin::Preset(_));
        let all = self
            .values
            .iter()
            .filter(move |(_, (_, origin))| given(origin));
        all.map(|(key, _)| *key)
    }

    /// Every setting that has a value, and the value.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values
            .iter()
            .map(|(key, (value, _))| (*key, value.as_str()))
    }

    /// Sets what became known later, such as zeta once the task is known.
    pub(crate) fn fill(&mut self, key: &'static str, value: String, origin: Origin) {
        self.values.entry(key).or_insert((value, origin));
    }

    /// The value, read; the error says which setting, and where the value came from.
    pub(crate) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.text(key)
            .map(|text| self.wrap(key, read(text)))
            .transpose()
    }

    /// The value of a setting that always has one.
    pub(crate) fn need<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let missing = || Error::argument(format!("--{key}"), "wanted a value, none is given");
        self.read(key, read)?.ok_or_else(missing)
    }

    fn wrap<T>(&self, key: &'static str, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Argument { why, .. } => {
                Error::argument(format!("--{key}"), self.blame(key, why))
            }
            other => other,
        })
    }

    fn blame(&self, key: &str, why: String) -> String {
        match self.values.get(key) {
            None | Some((_, Origin::Flag | Origin::Default)) => why,
            Some((_, origin)) => format!("{why} ({origin})"),
        }
    }

    /// An error about a setting that does not go with the others.
    pub(crate) fn refuse(&self, key: &'static str, why: String) -> Error {
        Error::argument(format!("--{key}"), self.blame(key, why))
    }

    /// A config file that gives these settings, each with its origin as a comment.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        for Setting { key, .. } in SETTINGS {
            match self.values.get(key) {
                Some((value, origin)) => {
                    let line = format!("{key} = {}", toml_value(value));
                    text += &format!("{line:<40} # {origin}{}\n", letter(key));
                }
                None if *key == "zeta" && self.values.contains_key("zeta-space") => {
                    text += &format!("# zeta: by the task: {}\n", self.zeta_by_task());
                }
                None => {}
            }
        }
        text
    }

    /// The preset's zeta, as long as the task is not known.
    fn zeta_by_task(&self) -> String {
        let name = self.text("method").unwrap_or_default();
        let zeta = |task: &str| Ok(Method::preset(name)?.zeta_for(&Task::parse(task)?));
        match (zeta("blur"), zeta("sr8")) {
            (Ok(gauss), Ok(other)) => {
                format!("{gauss} for Gaussian blur, else {other} (preset {name})")
            }
            (Err(e), _) | (_, Err(e)) => Error::to_string(&e),
        }
    }

    /// Names, and values with where they came from, as a report has them.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let fact = |(key, (value, origin)): (&&'static str, &(String, Origin))| {
            (*key, format!("{value} ({origin})"))
        };
        self.values.iter().map(fact)
    }

    /// The same as one JSON object.
    pub(crate) fn to_json(&self) -> Value {
        let entry = |(key, (value, origin)): (&&str, &(String, Origin))| {
            let entry = json!({ "value": value, "from": origin.to_string() });
            ((*key).to_owned(), entry)
        };
        Value::Object(self.values.iter().map(entry).collect())
    }
}

/// What the paper calls it.
fn letter(key: &str) -> &'static str {
    match key {
        "steps" => "; T",
        "ascents" | "iterations" => "; K",
        "every" => "; N",
        _ => "",
    }
}

fn toml_value(text: &str) -> String {
    let plain = text.parse::<f64>().is_ok_and(f64::is_finite) || matches!(text, "true" | "false");
    // TOML has no `.5` and no `007`, which are numbers to Rust.
    let plain = plain && text.parse::<toml::Value>().is_ok();
    if plain {
        text.into()
    } else {
        toml::Value::String(text.into()).to_string()
    }
}

fn known(key: &str, place: &str) -> Result<&'static Setting> {
    Setting::find(key).ok_or_else(|| {
        let keys: Vec<&str> = SETTINGS.iter().map(|s| s.key).collect();
        Error::config(
            place,
            format!("wanted one of {}, got `{key}`", keys.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(words: &[&str]) -> Result<Settings> {
        let command = Flags::<RESTORE>::augment_args(Command::new("restore").no_binary_name(true));
        let matches = command.try_get_matches_from(words).unwrap();
        Settings::gather(&Flags::<RESTORE>::from_arg_matches(&matches).unwrap(), None)
    }

    #[test]
    fn a_flag_beats_set_beats_file_beats_preset() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.toml");
        std::fs::write(
            &file,
            "method = \"dmap-full\"\nsteps = 1\nzeta = 1.5\nseed = 9",
        )
        .unwrap();
        let config = file.to_str().unwrap();
        let words = [
            "--config", config, "--set", "steps=2", "--set", "zeta=2.5", "--steps", "3",
        ];
        let settings = gather(&words).unwrap();
        let get = |key| settings.values[key].clone();
        let pair = |value: &str, origin| (value.to_owned(), origin);
        assert_eq!(get("steps"), pair("3", Origin::Flag));
        assert_eq!(get("zeta"), pair("2.5", Origin::Set));
        assert_eq!(get("seed"), pair("9", Origin::File(config.into())));
        assert_eq!(
            get("ascents"),
            pair("3", Origin::Preset("dmap-full".into()))
        );
        assert_eq!(
            get("zeta-space"),
            pair("ve", Origin::Preset("dmap-full".into()))
        );
        assert_eq!(get("samples"), pair("1", Origin::Default));
    }

    #[test]
    fn what_is_printed_reads_back() {
        let settings = gather(&["--zeta", ".5", "--prompt", "a \"cat\"\\", "--recursive"]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.toml");
        std::fs::write(&file, settings.to_toml()).unwrap();
        let again = gather(&["--config", file.to_str().unwrap()]).unwrap();
        let texts = |s: &Settings| -> Vec<_> {
            s.values.iter().map(|(k, (v, _))| (*k, v.clone())).collect()
        };
        assert_eq!(texts(&again), texts(&settings));
    }

    #[test]
    fn unknown_keys_and_values_are_named() {
        let error = |words: &[&str]| gather(words).unwrap_err().to_string();
        assert!(error(&["--set", "stops=3"]).contains("got `stops`"));
        assert!(error(&["--set", "steps"]).contains("wanted KEY=VALUE"));
        assert!(error(&["--method", "dsp"]).contains("wanted one of dps"));
        assert!(error(&["--config", "/no/file.toml"]).contains("/no/file.toml"));
    }
}
