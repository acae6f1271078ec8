//! Folders: what a run leaves when it is killed, shared out or disturbed is what an undisturbed one leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use posteriori::batch::journal::{Journal, Line};

use posteriori::rng::Philox;

use super::{command, copy, finished, folder, picture, run, tree};
use crate::oracle;

const LINE: &str = "restore -i y --model PIXEL --task sr8 --method dmap --steps 3 -q";

/// Every picture of a folder by its name, to the byte.
fn pictures(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    tree(folder)
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{i:02}.png")).collect()
}

/// The items that journals of a folder note, each of them once.
fn noted(folder: &Path) -> Vec<String> {
    let mut items = Vec::new();
    for file in fs::read_dir(folder.join(".posteriori")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let lines = Journal::read(&path).unwrap();
            items.extend(lines.into_iter().filter_map(|line| match line {
                Line::Item(done) => Some(done.item),
                _ => None,
            }));
        }
    }
    items.sort();
    items
}

/// Fails unless a run left these pictures and noted each of them once.
#[track_caller]
fn expect_as(plain: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    let pictures = pictures(folder);
    let names: Vec<_> = plain.keys().cloned().collect();
    assert_eq!(Vec::from_iter(pictures.keys().cloned()), names);
    // The record says how it was made, and that is the same as well.
    let changed: Vec<_> = names
        .iter()
        .filter(|name| plain[*name] != pictures[*name])
        .collect();
    assert!(changed.is_empty(), "{}: {changed:?}", folder.display());
    assert_eq!(noted(folder), names);
}

#[test]
fn batches_shards_claims_workers_and_threads_leave_the_same_bytes() {
    let names = names(10);
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let ran = |more: &str| run(dir.path(), &format!("{LINE} {more}")).expect(0, &[]);
    ran("-o plain");
    let plain = pictures(&dir.path().join("plain"));
    assert_eq!(plain.len(), 10);
    ran("-o three --batch 3");
    ran("-o eight --batch 8");
    ran("-o two --device cpu,cpu --batch 2");
    for shards in [2, 5] {
        // In another order than the folder's.
        for shard in (0..shards).rev() {
            ran(&format!(
                "-o shards{shards} --shard {shard}/{shards} --batch 2"
            ));
        }
    }
    ran("-o claims --claim");
    let mut alone = command(dir.path(), &format!("{LINE} -o thread"));
    alone.env("RAYON_NUM_THREADS", "1");
    finished(alone).expect(0, &[]);
    for other in [
        "three", "eight", "two", "shards2", "shards5", "claims", "thread",
    ] {
        expect_as(&plain, &dir.path().join(other));
    }
    let left = dir.path().join("claims/.posteriori/claims");
    assert_eq!(fs::read_dir(left).unwrap().count(), 0);
}

/// The same on the GPU kernels, by the emulator.
#[cfg(feature = "emu")]
#[test]
fn batches_and_shards_leave_the_same_bytes_on_kernels() {
    let dir = folder(&["0.png", "1.png", "2.png"]);
    let line = LINE.replace("--steps 3", "--steps 1 --device emu --precision bf16");
    let ran = |more: &str| run(dir.path(), &format!("{line} {more}")).expect(0, &[]);
    ran("-o plain --batch 1");
    ran("-o three --batch 3");
    ran("-o shards --shard 1/2 --batch 2");
    ran("-o shards --shard 0/2 --batch 2");
    let plain = pictures(&dir.path().join("plain"));
    assert_eq!(plain.len(), 3);
    expect_as(&plain, &dir.path().join("three"));
    expect_as(&plain, &dir.path().join("shards"));
}

/// What waits for a process is claimed by nobody, but for a batch, so that the others have something to do.
#[cfg(unix)]
#[test]
fn claims_are_a_batch_ahead_of_what_is_computed() {
    let names = names(10);
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let line = LINE.replace("--steps 3", "--steps 6");
    let claimed = |folder: &str| {
        let claims = fs::read_dir(dir.path().join(folder).join(".posteriori/claims"));
        claims.into_iter().flatten().count()
    };
    // One that is at work, stopped when its first picture is there; and the most that it had claimed.
    let stopped = |folder: &str, more: &str| {
        let mut command = command(dir.path(), &format!("{line} -o {folder} --claim {more}"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        let mut most = 0;
        let is_there = |name: &String| name.ends_with(".png");
        while !tree(&dir.path().join(folder)).iter().any(is_there) {
            assert!(begun.elapsed() < Duration::from_secs(120));
            assert!(child.try_wait().unwrap().is_none());
            most = most.max(claimed(folder));
        }
        signal(&child, "-STOP");
        (child, most.max(claimed(folder)))
    };
    for (more, batch) in [("--batch 2 --samples 4", 2), ("--samples 8", 1)] {
        let (mut child, most) = stopped(&format!("x{batch}"), more);
        child.kill().unwrap();
        child.wait().unwrap();
        // A batch ahead, one that is computed, two that wait behind it, and one picture that is written.
        assert!(
            (1..=4 * batch + 1).contains(&most),
            "{most} by batches of {batch}"
        );
    }
    let (mut first, _) = stopped("x", "");
    let there = tree(&dir.path().join("x")).len() + claimed("x");
    let second = format!("{line} -o x --claim --json");
    let second = run(dir.path(), &second).expect(0, &[]);
    signal(&first, "-CONT");
    assert!(first.wait().unwrap().success());
    let done = &second.records("summary")[0]["done"];
    assert!(done.as_u64().unwrap() as usize + there >= 10, "{done}");
    run(dir.path(), &format!("{line} -o plain")).expect(0, &[]);
    expect_as(&pictures(&dir.path().join("plain")), &dir.path().join("x"));
}

#[cfg(unix)]
fn signal(child: &std::process::Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Runs over so many pictures that are killed so many times in all, each time at another moment, and then left to end.
fn killed(count: usize, kills: usize) {
    let names = names(count);
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    run(dir.path(), &format!("{LINE} -o plain")).expect(0, &[]);
    let plain = pictures(&dir.path().join("plain"));
    let mut random = Philox::new(11);
    let (mut done, mut round) = (0, 0);
    while done < kills {
        let words = format!("{LINE} -o killed{round}");
        let killed = dir.path().join(format!("killed{round}"));
        while done < kills && tree(&killed).len() < count {
            // While it opens its models, or at a moment within the next pictures after it has written one more.
            let more = usize::from(random.uniform() < 0.8);
            let (wanted, pause) = (tree(&killed).len() + more, 0.08 * random.uniform());
            let mut command = command(dir.path(), &words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let begun = Instant::now();
            while tree(&killed).len() < wanted {
                assert!(begun.elapsed() < Duration::from_secs(120));
            }
            std::thread::sleep(Duration::from_secs_f64(pause));
            done += usize::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        run(dir.path(), &words).expect(0, &[]);
        assert_eq!(tree(&killed), names);
        assert!(pictures(&killed) == plain);
        assert_eq!(noted(&killed), names);
        // What there is to say is said again by a run that has nothing to do.
        run(dir.path(), &words).expect(0, &[]);
        assert_eq!(noted(&killed), names);
        round += 1;
    }
}

#[test]
fn a_killed_run_goes_on_and_nothing_is_lost_or_done_twice() {
    killed(12, 8);
}

#[test]
#[ignore = "takes minutes"]
fn a_run_that_is_killed_fifty_times_goes_on() {
    killed(40, 50);
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_what_is_being_written() {
    let names = names(12);
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // Long enough for the signal to come in the middle.
    let words = format!("{LINE} -o x").replace("--steps 3", "--steps 20");
    let child = command(dir.path(), &words)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while tree(&dir.path().join("x")).len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    // What is there is whole and noted; the rest is not begun.
    let there = tree(&dir.path().join("x"));
    assert!(there.len() < names.len(), "it ended before the signal came");
    assert_eq!(noted(&dir.path().join("x")), there);
    run(dir.path(), &words).expect(0, &[]);
    assert_eq!(tree(&dir.path().join("x")), names);
}

#[test]
fn a_run_with_other_settings_does_not_go_on_in_the_same_folder() {
    let dir = folder(&["a.png", "b.png"]);
    run(dir.path(), &format!("{LINE} -o x")).expect(0, &[]);
    let before = pictures(&dir.path().join("x"));
    for (more, named) in [
        ("--zeta 2", "--zeta: wanted 9.6"),
        ("--seed 3", "--seed: wanted 0"),
        ("--precision f64", "--precision: wanted f32"),
        ("--samples 2", "--samples: wanted 1"),
        ("--prompt cat", "--prompt: wanted none"),
    ] {
        run(dir.path(), &format!("{LINE} -o x {more}"))
            .expect(2, &[named, "another output folder"]);
    }
    assert!(pictures(&dir.path().join("x")) == before);
    // What changes no result may change.
    run(dir.path(), &format!("{LINE} -o x --batch 2 --recursive")).expect(0, &[]);
    run(
        dir.path(),
        &format!("{LINE} -o x --zeta 2 --exists overwrite"),
    )
    .expect(0, &[]);
    assert!(pictures(&dir.path().join("x")) != before);
}

#[test]
fn shards_claims_and_whole_runs_with_other_settings_refuse_each_other() {
    let names = names(10);
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let kinds = ["--shard 1/2", "--shard 0/3", "--claim", ""];
    for kind in kinds {
        let folder = format!("x{}", kind.len());
        run(dir.path(), &format!("{LINE} -o {folder} {kind}")).expect(0, &[]);
        let before = pictures(&dir.path().join(&folder));
        assert!(!before.is_empty(), "{kind}");
        for other in kinds {
            run(dir.path(), &format!("{LINE} -o {folder} {other} --zeta 2"))
                .expect(2, &["--zeta: wanted 9.6", "another output folder"]);
        }
        assert!(pictures(&dir.path().join(&folder)) == before);
        fs::remove_dir_all(dir.path().join(&folder)).unwrap();
    }
    run(dir.path(), &format!("{LINE} -o x --shard 1/2")).expect(0, &[]);
    let anew = format!("{LINE} -o x --zeta 2 --exists overwrite");
    run(dir.path(), &anew).expect(0, &[]);
    assert_eq!(noted(&dir.path().join("x")), names);
    run(dir.path(), &format!("{LINE} -o x --shard 1/2 --zeta 2")).expect(0, &[]);
}

#[test]
fn a_run_with_other_files_under_the_same_names_does_not_go_on() {
    let dir = folder(&["a.png"]);
    let at = |name: &str| dir.path().join(name);
    let model = at("model");
    copy(&oracle::checkpoint("tiny-pixel"), &model);
    let mask = |seed| picture(4, 4, seed).save(at("mask.png")).unwrap();
    let line = "restore -i y -o x --model model --task mask:mask.png --method dps --steps 2 -q";
    mask(1);
    run(dir.path(), line).expect(0, &[]);
    mask(2);
    run(dir.path(), line).expect(
        2,
        &["--task: wanted mask:mask.png, ", "another output folder"],
    );
    mask(1);
    run(dir.path(), line).expect(0, &[]);
    // The same weights under a configuration that means the same: whether it does is not for us to tell.
    let config = model.join("unet/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n").unwrap();
    run(dir.path(), line).expect(2, &["--model: wanted ", "another output folder"]);
}

#[test]
fn what_is_wrong_with_a_folder_is_named_and_the_rest_is_done() {
    let dir = folder(&["a.png", "z.png"]);
    let y = dir.path().join("y");
    fs::write(y.join("empty.png"), "").unwrap();
    let whole = fs::read(y.join("a.png")).unwrap();
    fs::write(y.join("half.png"), &whole[..whole.len() / 2]).unwrap();
    let mut expected = vec!["empty.png", "half.png"];
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        std::os::unix::fs::symlink("loop.png", y.join("loop.png")).unwrap();
        let name = std::ffi::OsStr::from_bytes(b"\xff.png");
        fs::write(y.join(name), &whole).unwrap();
        expected.extend(["loop.png", "not UTF-8"]);
    }
    let ran = run(dir.path(), &format!("{LINE} -o x --json")).expect(3, &expected);
    assert_eq!(tree(&dir.path().join("x")), ["a.png", "z.png"]);
    let summary = &ran.records("summary")[0];
    assert_eq!(summary["failed"], expected.len());
    let lines = Journal::read(&dir.path().join("x/.posteriori/journal.jsonl")).unwrap();
    let failed = lines.iter().filter(|l| matches!(l, Line::Error(_))).count();
    assert_eq!(failed, expected.len());
}

#[test]
fn usage_of_shards_and_claims() {
    let dir = folder(&["a.png"]);
    for (more, named) in [
        ("--shard 3/3", "I from 0 to N - 1"),
        ("--shard three", "got `three`"),
        ("--claim=0", "1 to 86400"),
        ("--claim --exists overwrite", "--exists skip"),
        ("--device cpu,tpu", "got `tpu`"),
        ("--batch many", "`many`"),
    ] {
        run(dir.path(), &format!("{LINE} -o x {more}")).expect(2, &[named]);
    }
    assert!(!dir.path().join("x").exists());
}
