//! `docs/json.md` and what the program prints, which must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use posteriori::io::image::{Format, save};
use serde_json::{Map, Value};

use super::{folder, picture, run};
use crate::oracle;
use crate::training::configure;

/// Sections of docs/json.md that no command below meets, and why.
const UNMET: [(&str, &str); 5] = [
    (
        "`item` of `verify`, verdict `unknown`",
        "no golden of the tests is",
    ),
    ("`item` of `demo`", "minutes without optimisation"),
    ("`summary` of `demo`", "minutes without optimisation"),
    ("`summary` of `kernels`", "needs NVRTC"),
    (
        "`item` of `bench`, verdict `no variant`, `not run`",
        "the native runtime runs all of them",
    ),
];

/// Fields that may be missing and that no command below prints, by table and path; of kernels, all that NVRTC tells.
const UNMET_FIELDS: [(&str, &str); 2] =
    [("`item` of `kernels`", ""), ("`item` of `study`", "error")];

/// Paths of the fields that were met, by table.
type Met = BTreeMap<String, BTreeSet<String>>;

/// A table of docs/json.md.
#[derive(Debug)]
struct Section {
    title: String,
    schema: String,
    commands: Vec<String>,
    verdicts: Vec<String>,
    /// Each field's path and type.
    fields: Vec<(String, String)>,
}

/// The words of a text that stand between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect()
}

fn sections() -> Vec<Section> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = fs::read_to_string(path).unwrap();
    let mut all: Vec<Section> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            let (of, verdict) = title.split_once(", verdict ").unwrap_or((title, ""));
            let mut words = quoted(of).into_iter();
            all.push(Section {
                title: title.into(),
                schema: words.next().unwrap(),
                commands: words.collect(),
                verdicts: quoted(verdict),
                fields: Vec::new(),
            });
        } else if line.starts_with("| `") {
            let cells: Vec<&str> = line.split(" | ").collect();
            let field = quoted(cells[0]).remove(0);
            all.last_mut()
                .unwrap()
                .fields
                .push((field, cells[1].into()));
        }
    }
    assert!(all.len() > 30 && all.iter().all(|section| !section.fields.is_empty()));
    all
}

impl Section {
    fn is_of(&self, command: &str, record: &Value) -> bool {
        let none_or = |all: &[String], one: &str| all.is_empty() || all.iter().any(|a| a == one);
        record["schema"] == self.schema.as_str()
            && none_or(&self.commands, command)
            && none_or(
                &self.verdicts,
                record["verdict"].as_str().unwrap_or_default(),
            )
    }

    /// Fails unless an object has exactly the fields whose paths begin with `place`; adds those to `met`.
    fn compare(&self, object: &Map<String, Value>, place: &str, met: &mut Met) {
        let title = &self.title;
        let mut below: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for (path, kind) in &self.fields {
            if let Some(rest) = path.strip_prefix(place) {
                let (name, rest) = rest.split_once('.').unwrap_or((rest, ""));
                below.entry(name).or_default().push((rest, kind));
            }
        }
        for (name, value) in object {
            let (known, fields) = match below.get_key_value(name.as_str()) {
                Some((known, fields)) => (*known, fields),
                None => (
                    "*",
                    below.get("*").unwrap_or_else(|| {
                        panic!("{title}: the field `{place}{name}` is not documented")
                    }),
                ),
            };
            match fields[..] {
                [("", kind)] => {
                    assert!(
                        is(value, kind.trim_end_matches(", optional")),
                        "{title}: `{place}{name}` is {value}, and documented as {kind}"
                    );
                    met.entry(title.clone())
                        .or_default()
                        .insert(format!("{place}{known}"));
                }
                _ => {
                    let inner = value.as_object();
                    let inner = inner.unwrap_or_else(|| panic!("{title}: `{name}` is {value}"));
                    self.compare(inner, &format!("{place}{known}."), met);
                }
            }
        }
        for (name, fields) in below {
            let optional =
                name == "*" || fields.iter().all(|(_, kind)| kind.ends_with(", optional"));
            assert!(
                optional || object.contains_key(name),
                "{title}: there is no field `{place}{name}`"
            );
        }
    }
}

/// Whether a value is of a documented type.
fn is(value: &Value, kind: &str) -> bool {
    if let Some(kind) = kind.strip_suffix(" or null") {
        return value.is_null() || is(value, kind);
    }
    if let Some(kind) = kind.strip_prefix("array of ") {
        let all = value.as_array();
        return all.is_some_and(|all| all.iter().all(|value| is(value, kind)));
    }
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        other => panic!("docs/json.md: there is no type `{other}`"),
    }
}

/// A folder for the commands below.
fn prepared() -> tempfile::TempDir {
    let dir = folder(&["a.png", "b.png"]);
    let at = |name: &str| dir.path().join(name);
    fs::write(at("y/bad.png"), "no picture").unwrap();
    for name in ["clean", "images"] {
        fs::create_dir(at(name)).unwrap();
    }
    for (i, name) in ["clean/a.png", "clean/b.png", "images/a.png"]
        .iter()
        .enumerate()
    {
        save(at(name), &picture(32, 32, i), Format::Png, &[]).unwrap();
    }
    save(at("images/small.png"), &picture(8, 8, 1), Format::Png, &[]).unwrap();
    configure(&at("m"));
    let model = oracle::checkpoint("tiny-pixel");
    let study = format!(
        "model = '{}'\nscenes = {{ count = 2, size = '32x32' }}\ntasks = ['sr4']\nsteps = 2\n\
         [[row]]\nname = 'DPS'\nmethod = 'dps'\n[[row]]\nname = 'prior'\nmethod = 'ancestral'\n",
        model.display()
    );
    fs::write(at("s.toml"), study).unwrap();
    dir
}

#[test]
fn every_line_is_as_documented() {
    let sections = sections();
    let goldens = oracle::data("fixtures/tiny-pixel.safetensors");
    let controlnet = oracle::checkpoint("tiny-sd2").join("controlnet");
    let (goldens, controlnet) = (goldens.display(), controlnet.display());
    let scene = "--task sr4 --scene 3 --size 32x32 --steps 2 --device cpu";
    let commands = [
        "restore -i y -o x --model PIXEL --task sr8 --steps 2".to_owned(),
        "restore -i y -o x --model PIXEL --task sr8 --steps 2".into(),
        "restore -i y -o z --model PIXEL --task sr8 --dry-run".into(),
        "restore -i y -o z --model PIXEL --print-config".into(),
        "plan --model SD2".into(),
        "generate -o g --model PIXEL --steps 2".into(),
        "generate -o g --model PIXEL --steps 2".into(),
        "degrade -i clean -o d --task sr8".into(),
        "degrade -i clean -o d --task sr8".into(),
        "evaluate --restored x --truth clean --measurements d".into(),
        "evaluate --restored clean --truth clean".into(),
        "info x/a.png x/.posteriori/journal.jsonl d/a.png.measurement.json y/a.png".into(),
        "repro x/a.png g/sample-00000.png y/a.png".into(),
        "check --op residual --runtime native".into(),
        "bench --runtime native --op add".into(),
        "bench --model SD2 --predict=1".into(),
        "bench --model PIXEL --runtime native --step=1".into(),
        "doctor --model nowhere --device cpu".into(),
        format!("verify --model PIXEL --goldens {goldens}"),
        format!("verify --model SD2 --goldens {goldens} --only unet"),
        "train autoencoder -o m -i images --size 32x32 --steps 2 --batch 1 --micro 1 --device cpu"
            .into(),
        "study s.toml -o s".into(),
        "diagnose toy -o toy --samples 20 --steps 5".into(),
        format!("diagnose score-mean --model PIXEL {scene} -o mean --draws 2 --zetas 1"),
        format!("diagnose diversity --model PIXEL {scene} -o div --samples 2"),
        format!(
            "diagnose score-error --model SD2 --task sr8 --scene 3 --size 64x64 --steps 2 --device cpu --reference \
             {controlnet} -o err"
        ),
        "restore -i nowhere -o z --model PIXEL --task sr8".into(),
        #[cfg(feature = "cuda")]
        "kernels".into(),
    ];
    let dir = prepared();
    let mut met = Met::new();
    for line in commands {
        let ran = run(dir.path(), &format!("{line} --json"));
        let command = line.split(' ').next().unwrap();
        assert!(!ran.stdout.is_empty(), "{line}: {}", ran.stderr);
        for text in ran.stdout.lines() {
            let record: Value = serde_json::from_str(text).unwrap();
            let fit: Vec<_> = sections
                .iter()
                .filter(|s| s.is_of(command, &record))
                .collect();
            let [section] = fit[..] else {
                panic!("{line}: {} tables for {text}", fit.len());
            };
            let mut fields = record.as_object().unwrap().clone();
            fields.remove("schema");
            section.compare(&fields, "", &mut met);
        }
    }
    for Section { title, fields, .. } in &sections {
        if UNMET.iter().any(|(unmet, _)| unmet == title) {
            continue;
        }
        let met = met.get(title).cloned().unwrap_or_default();
        for (path, _) in fields.iter().filter(|(path, _)| !met.contains(path)) {
            let known = UNMET_FIELDS
                .iter()
                .any(|(of, field)| of == title && (field.is_empty() || field == path));
            assert!(known, "{title}: no command printed `{path}`");
        }
    }
}

/// What the sources print is in the documentation, and nothing else is.
#[test]
fn every_schema_is_documented() {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for rest in text.split(".record(").skip(1) {
                if let Some(rest) = rest.trim_start().strip_prefix('"') {
                    found.insert(rest.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    let mut printed = BTreeSet::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli"),
        &mut printed,
    );
    let documented: BTreeSet<String> = sections().into_iter().map(|s| s.schema).collect();
    assert_eq!(printed, documented);
}
