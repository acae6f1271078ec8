//! Arguments that cannot be: the code is 2 (or 1 for what is missing on disk), and nothing is written.

use std::fs;

use super::{folder, run, tree};

#[test]
fn values_out_of_range_are_named() {
    let dir = folder(&["a.png"]);
    for (flags, named) in [
        ("--steps -3", "-3"),
        ("--steps 0", "--steps"),
        ("--steps 1001", "1001"),
        ("--steps many", "many"),
        ("--method dsp", "dsp"),
        ("--task sr", "--task"),
        ("--task sr0", "--task"),
        ("--zeta nan", "--zeta"),
        ("--zeta -1", "--zeta"),
        ("--zeta-space xy", "xy"),
        ("--ascents 0", "--ascents"),
        ("--method dps --ascents 2", "--ascents"),
        ("--spacing often", "often"),
        ("--solver ddim:2", "ddim:2"),
        ("--seed x", "--seed"),
        ("--samples 0", "--samples"),
        ("--batch 0", "--batch"),
        ("--batch 999999999999", "--batch"),
        ("--precision f8", "f8"),
        ("--device tpu", "tpu"),
        ("--exists maybe", "maybe"),
        ("--on-error panic", "panic"),
        ("--format bmp", "bmp"),
        ("--format jpg:101", "101"),
        ("--recursive=perhaps", "perhaps"),
        ("--set steps=-1", "--set"),
        ("--set colour=red", "colour"),
        ("--config nowhere.toml", "nowhere.toml"),
        ("--unheard-of", "--unheard-of"),
    ] {
        let task = if flags.contains("--task") {
            ""
        } else {
            "--task sr8"
        };
        let line = format!("restore -i y -o x --model PIXEL {task} {flags}");
        run(dir.path(), &line).expect(2, &[named]);
        assert!(!dir.path().join("x").exists(), "{flags}");
    }
    run(dir.path(), "restore -i y -o x --task sr8").expect(2, &["--model"]);
    run(
        dir.path(),
        "restore -i y -o x --model PIXEL --device cuda:0 --task sr8",
    )
    .expect(4, &["cuda:0"]);
    run(
        dir.path(),
        "restore -i y -o x --model PIXEL --precision f16 --task sr8",
    )
    .expect(4, &["f16"]);
    run(dir.path(), "degrade -i y -o x --task sr2 --noise -1").expect(2, &["--noise"]);
    for noise in ["1e39", "1e300"] {
        let line = format!("degrade -i y -o x --task sr2 --noise {noise}");
        run(dir.path(), &line).expect(2, &["error: --noise: wanted at most 1e30", noise]);
    }
    run(dir.path(), "generate -o x --model PIXEL --size 0x8").expect(2, &["--size"]);
    run(dir.path(), "generate -o x --model PIXEL --count 0").expect(2, &["error: --count: wanted"]);
    run(dir.path(), "nonsense").expect(2, &["nonsense"]);
    assert_eq!(tree(dir.path()), ["y/a.png"]);
}

#[test]
fn folders_that_cannot_be() {
    let dir = folder(&["a.png", "sub/b.png"]);
    let line = |input: &str, output: &str| {
        let line = format!("restore -i {input} -o {output} --model PIXEL --task sr8 --steps 1");
        run(dir.path(), &line)
    };
    line("nowhere", "x").expect(1, &["nowhere"]);
    line("y", "y").expect(2, &["the same or one inside the other"]);
    line("y", "y/out").expect(2, &["y/out"]);
    line("y", ".").expect(2, &["--output"]);
    line("y/a.png", "y/a.png").expect(2, &["y/a.png"]);
    line("y/a.png", "x.gif").expect(2, &["x.gif"]);
    // tests may run as root, whom no permission stops; a file in place of a folder stops everyone
    fs::write(dir.path().join("file"), "mine").unwrap();
    line("y", "file").expect(1, &["file"]);
    line("y", "file/x").expect(1, &["file/x"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    line("empty", "x").expect(1, &["empty", "--recursive"]);
    assert_eq!(tree(dir.path()), ["file", "y/a.png", "y/sub/b.png"]);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"mine");
}

#[test]
fn a_model_that_is_not_there() {
    let dir = folder(&["a.png"]);
    for command in ["restore -i y -o x --task sr8", "generate -o x", "plan"] {
        let line = format!("{command} --model nowhere");
        run(dir.path(), &line).expect(1, &["nowhere"]);
    }
    let ran = run(
        dir.path(),
        "restore -i y -o x --task sr8 --model nowhere --json",
    )
    .expect(1, &[]);
    assert!(ran.records("error")[0]["item"].is_null());
    assert_eq!(tree(dir.path()), ["y/a.png"]);
}
