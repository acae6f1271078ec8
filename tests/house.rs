//! The rules of the house: which way imports point, where `unsafe` and third-party crates may be,
//! how long a file may get.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. An import may point to the same layer or down.
const LAYERS: [&[&str]; 9] = [
    &["error", "dtype", "shape", "rng"],
    &["runtime", "tensor", "reading"],
    &["cx"],
    &["ops"],
    &["nn"],
    &["models"],
    &[
        "samplers",
        "operators",
        "diffusion",
        "metrics",
        "scenes",
        "sheet",
        "report",
    ],
    &["pipeline", "train", "study", "verify", "diagnose", "batch"],
    &["cli", "main", "lib"],
];

/// Side rooms: what each may import of the layers.
const IO_MAY_IMPORT: [&str; 4] = ["error", "dtype", "io", "runtime"];

/// Files of `ops` that are no rooms.
const HELPERS: [&str; 11] = [
    "mod",
    "variant",
    "check",
    "case",
    "bench",
    "chunks",
    "columns",
    "conv_norm",
    "norm_fold",
    "predict",
    "tensor_cores",
];

/// Crates that only some rooms know.
const CRATES: [(&str, &[&str]); 16] = [
    ("safetensors", &["io"]),
    ("image", &["io"]),
    ("moxcms", &["io"]),
    ("png", &["io"]),
    ("tiff", &["io"]),
    ("base64", &["report"]),
    ("gemm", &["runtime"]),
    ("memmap2", &["runtime"]),
    ("cudarc", &["runtime"]),
    ("libloading", &["runtime"]),
    ("pulp", &["runtime"]),
    ("toml", &["cli"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("indicatif", &["cli", "main"]),
    ("ctrlc", &["cli"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// The room a file is in: its first folder under `src`, or its own name.
fn room(path: &Path) -> String {
    let below = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = below
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
}

/// The rooms that a file's code names after `crate::` or `posteriori::`.
fn imports(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for line in code(text) {
        for prefix in ["crate::", "posteriori::"] {
            for (_, rest) in line
                .match_indices(prefix)
                .map(|(i, p)| line.split_at(i + p.len()))
            {
                rooms.push(
                    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    rooms
}

#[test]
fn imports_point_down() {
    let level: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(i, rooms)| rooms.iter().map(move |r| (*r, i)))
        .collect();
    for (path, text) in sources() {
        let own = room(&path);
        for target in imports(&text) {
            let allowed = if own == "io" {
                IO_MAY_IMPORT.contains(&target.as_str()) || !level.contains_key(target.as_str())
            } else {
                assert!(level.contains_key(own.as_str()), "{own} is in no layer");
                level
                    .get(target.as_str())
                    .is_none_or(|&t| t <= level[own.as_str()])
            };
            assert!(
                allowed,
                "{} imports `{target}`, which is above it",
                path.display()
            );
        }
    }
}

#[test]
fn ops_do_not_call_ops() {
    let rooms: Vec<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops"))
        .unwrap()
        .map(|e| {
            e.unwrap()
                .file_name()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned()
        })
        .filter(|name| !HELPERS.contains(&name.as_str()))
        .collect();
    for (path, text) in sources().into_iter().filter(|(p, _)| room(p) == "ops") {
        let below: Vec<_> = path.iter().skip_while(|c| *c != "ops").skip(1).collect();
        let own = below[0]
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        for other in rooms.iter().filter(|r| **r != own && own != "mod") {
            let call = format!("ops::{other}");
            assert!(
                !code(&text).any(|line| line.contains(&call)),
                "{} uses {call}",
                path.display()
            );
        }
    }
}

#[test]
fn every_room_of_ops_is_on_the_list() {
    let list =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/mod.rs")).unwrap();
    for (path, text) in sources().into_iter().filter(|(p, _)| room(p) == "ops") {
        for line in code(&text).filter(|l| l.starts_with("pub static ") && l.contains(": Op<")) {
            let name = line["pub static ".len()..].split(':').next().unwrap();
            let below: Vec<_> = path.iter().skip_while(|c| *c != "ops").skip(1).collect();
            let own = below[0]
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned();
            let row = format!("&{own}::{name}");
            assert!(
                list.contains(&row),
                "{row} of {} is not in ops::ALL",
                path.display()
            );
        }
    }
}

/// Every room has kernels and every kernel a room; no kernel file lies there without a row that launches it.
#[test]
fn kernels_and_rooms_belong_together() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut names: Vec<String> = entries
            .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mut rooms = names(&root.join("src/ops"));
    rooms.retain(|name| !HELPERS.contains(&name.as_str()));
    let mut folders = names(&root.join("kernels"));
    folders.retain(|name| !["common", "emu"].contains(&name.as_str()));
    assert_eq!(rooms, folders);
    let ops: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| room(path) == "ops")
        .collect();
    for folder in folders {
        for file in names(&root.join("kernels").join(&folder)) {
            // `.sm90a` says who compiles it, and is no part of its name.
            let module = format!("\"{folder}/{}\"", file.trim_end_matches(".sm90a"));
            assert!(
                ops.iter().any(|(_, text)| text.contains(&module)),
                "no op launches {module}"
            );
        }
    }
}

#[test]
fn unsafe_stays_in_the_runtime() {
    for (path, text) in sources() {
        let has = code(&text).any(|line| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
        });
        assert!(
            !has || room(&path) == "runtime",
            "unsafe in {}",
            path.display()
        );
    }
}

#[test]
fn crates_are_known_where_they_belong() {
    for (path, text) in sources() {
        for (name, rooms) in CRATES {
            let (use_it, path_it) = (format!("use {name}"), format!("{name}::"));
            let uses = code(&text).any(|line| {
                let named = line.match_indices(&path_it).any(|(i, _)| {
                    !line[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                line.starts_with(&format!("{use_it}::")) || line == format!("{use_it};") || named
            });
            // `super::image::` and a local `mod image` are not the crate.
            let local =
                ["io", "pipeline", "cli"].contains(&room(&path).as_str()) && name == "image";
            assert!(
                !uses || local || rooms.contains(&room(&path).as_str()),
                "{} knows {name}",
                path.display()
            );
        }
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= 600,
            "{} has {lines} lines; 600 at most: make it a folder",
            path.display()
        );
        assert!(
            text.starts_with("//!") || text.starts_with("#![doc"),
            "{} does not say what it is",
            path.display()
        );
    }
}

/// What patch and a merge leave beside a file belongs to nobody.
#[test]
fn no_leftovers_of_patches_lie_about() {
    fn walk(folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_left = name.ends_with(".orig") || name.ends_with(".rej");
            assert!(!is_left, "{} is left over", entry.path().display());
            if entry.file_type().unwrap().is_dir() && name != "target" && name != ".git" {
                walk(&entry.path());
            }
        }
    }
    walk(Path::new(env!("CARGO_MANIFEST_DIR")));
}
