//! What happens to a machine in the middle of a run over a folder.

use std::fs;
use std::time::{Duration, Instant};

use posteriori::io::image::{Format, save};

use super::{command, finished, folder, picture, run, run_with_little_room, tree};

const LINE: &str = "restore -i y --model PIXEL --task sr8 --method dps --steps 1";

#[test]
fn a_full_disk_fails_what_it_has_no_room_for_and_the_rest_is_done() {
    let dir = folder(&["a.png", "c.png"]);
    let large = dir.path().join("y/b.png");
    save(&large, &picture(16, 16, 3), Format::Png, &[]).unwrap();
    run(dir.path(), &format!("{LINE} -o plain")).expect(0, &[]);
    // Pictures of 32 x 32 and their records fit, one of 128 x 128 does not.
    let ran = run_with_little_room(dir.path(), 10, &format!("{LINE} -o x"));
    ran.expect(3, &["b.png", "cannot be written", "too large"]);
    assert_eq!(tree(&dir.path().join("x")), ["a.png", "c.png"]);
    run(dir.path(), &format!("{LINE} -o x")).expect(0, &[]);
    for name in ["a.png", "b.png", "c.png"] {
        let of = |folder: &str| fs::read(dir.path().join(folder).join(name)).unwrap();
        assert!(of("plain") == of("x"), "{name}");
    }
}

#[test]
fn weights_that_a_disk_has_no_room_for_end_the_run() {
    let dir = folder(&["a.png"]);
    let line = "restore -i y -o x --model SD2 --task sr8 --method dps --steps 1 --offload .";
    let ran = run_with_little_room(dir.path(), 16, line);
    ran.expect(1, &["weights cannot be put there", "too large"]);
}

/// A file system of its own, where the system lets us have one.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_ends_the_run() {
    use posteriori::batch::journal::{Journal, Line};
    let names: Vec<String> = (0..16).map(|i| format!("{i:02}.png")).collect();
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let within = |shell: &str, line: &str| {
        let program = command(dir.path(), line);
        let mut unshare = std::process::Command::new("unshare");
        let shell = format!("mkdir -p x && mount -t tmpfs -o size=64k none x && {shell}");
        unshare
            .args([
                "-rm",
                "bash",
                "-c",
                &shell,
                env!("CARGO_BIN_EXE_posteriori"),
            ])
            .args(program.get_args())
            .current_dir(dir.path());
        unshare
    };
    let tried = within("true", "").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("no file system of its own is to be had: not tested");
        return;
    }
    let shell = "{ \"$0\" \"$@\"; code=$?; cp -r x kept; exit $code; }";
    let ran = finished(within(shell, &format!("{LINE} -o x --batch 1")));
    ran.expect(1, &["x/", "make room"]);
    let kept = tree(&dir.path().join("kept"));
    assert!(!kept.is_empty() && kept.len() < names.len(), "{kept:?}");
    let lines = Journal::read(&dir.path().join("kept/.posteriori/journal.jsonl")).unwrap();
    assert!(!lines.iter().any(|line| matches!(line, Line::Error(_))));
}

#[test]
fn an_old_picture_never_lies_beside_a_new_measurement_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("clean")).unwrap();
    let clean = dir.path().join("clean/a.png");
    save(clean, &picture(128, 128, 3), Format::Png, &[]).unwrap();
    let line = "degrade -i clean -o y --task sr4";
    run(dir.path(), line).expect(0, &[]);
    let files = || {
        let names = ["a.png", "a.png.measurement.json"];
        assert_eq!(tree(&dir.path().join("y")), names);
        names.map(|name| fs::read(dir.path().join("y").join(name)).unwrap())
    };
    let before = files();
    // Room for the file, and not for the picture.
    let again = format!("{line} --noise 0.1 --exists overwrite");
    run_with_little_room(dir.path(), 2, &again).expect(3, &["a.png", "too large"]);
    assert!(files() == before);
    run(dir.path(), &again).expect(0, &[]);
    let after = files();
    assert!(after[0] != before[0] && after[1] != before[1]);
}

/// A folder too deep for the system to name its path: not even root can read it.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_inside_that_cannot_be_read_fails_by_name() {
    let dir = folder(&["a.png"]);
    let part = vec!["d".repeat(240); 8].join("/");
    let parts = ["p", "q", "y/sub"].map(|name| dir.path().join(name));
    for parent in &parts {
        fs::create_dir_all(parent.join(&part)).unwrap();
    }
    fs::rename(&parts[0], parts[1].join(&part).join("p")).unwrap();
    fs::rename(&parts[1], parts[2].join(&part).join("q")).unwrap();
    for line in [
        "degrade -i y -o m --task denoise --recursive".to_owned(),
        format!("{LINE} -o x --recursive"),
    ] {
        run(dir.path(), &line).expect(3, &["failed: sub/ddd", "wanted a folder of images: "]);
    }
    assert_eq!(tree(&dir.path().join("x")), ["a.png"]);
    let measured = ["a.png", "a.png.measurement.json"];
    assert_eq!(tree(&dir.path().join("m")), measured);
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_folder_that_cannot_be_made_is_named_before_anything_is_computed() {
    let dir = folder(&["a.png"]);
    // Not even for root.
    let ran = run(dir.path(), &format!("{LINE} -o /sys/posteriori/x --json"));
    let ran = ran.expect(1, &["/sys/posteriori", "cannot be made"]);
    assert!(ran.records("progress").is_empty());
}

#[test]
fn inputs_that_vanish_are_named_and_the_rest_is_done() {
    let names: Vec<String> = (0..12).map(|i| format!("{i:02}.png")).collect();
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // Long enough for the last one to be there no more when it is read, a few pictures ahead.
    let line = format!("{LINE} -o x --batch 1").replace("--steps 1", "--steps 10");
    let program = command(dir.path(), &line);
    let ran = std::thread::scope(|scope| {
        let ran = scope.spawn(|| finished(program));
        let begun = Instant::now();
        while tree(&dir.path().join("x")).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(120));
        }
        fs::remove_file(dir.path().join("y/11.png")).unwrap();
        ran.join().unwrap()
    });
    ran.expect(3, &["11.png"]);
    assert_eq!(tree(&dir.path().join("x")), names[..11]);
}
