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
