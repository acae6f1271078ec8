//! `study` as people run it.

use std::fs;

use posteriori::io::csv;

use super::{copy, run, tree};
use crate::oracle;
use crate::report::{pictures, whole};

fn config(folder: &std::path::Path, more: &str) {
    let model = oracle::checkpoint("tiny-pixel");
    let text = format!(
        "model = '{}'\nscenes = {{ count = 3, size = '32x32' }}\ntasks = ['sr4']\nsteps = 2\nbatch = 2\n\
         [[row]]\nname = 'DPS'\nmethod = 'dps'\nzeta = 0.3\n[[row]]\nname = 'prior'\nmethod = 'ancestral'\n{more}",
        model.display()
    );
    fs::write(folder.join("s.toml"), text).unwrap();
}

#[test]
fn a_config_in_tables_out() {
    let dir = tempfile::tempdir().unwrap();
    config(dir.path(), "");
    let ran = run(dir.path(), "study s.toml -o out/a").expect(0, &["6 done, 0 skipped, 0 failed"]);
    let out = dir.path().join("out/a");
    let mut files = tree(&out);
    files.retain(|file| !file.starts_with("pictures/"));
    assert_eq!(
        files,
        ["config.toml", "results.csv", "sheet-sr4.png", "tables.md"]
    );
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let tables = read("tables.md");
    assert_eq!(ran.stdout.trim_end(), tables.trim_end());
    for part in [
        "## sr4",
        "| DPS | ",
        "Minus DPS, image by image",
        "3 images: scenes of seed 0, 32x32",
    ] {
        assert!(tables.contains(part), "{tables}");
    }
    assert_eq!(
        read("config.toml"),
        fs::read_to_string(dir.path().join("s.toml")).unwrap()
    );
    let results = read("results.csv");
    assert_eq!(results.lines().count(), 7);

    // what is done is not done again, and the batch may change
    let again = fs::read_to_string(dir.path().join("s.toml")).unwrap();
    fs::write(
        dir.path().join("s.toml"),
        again.replace("batch = 2", "batch = 3"),
    )
    .unwrap();
    let ran = run(dir.path(), "study s.toml -o out/a --json").expect(0, &["0 done, 6 skipped"]);
    assert_eq!(
        (ran.records("progress").len(), ran.records("item").len()),
        (0, 0)
    );
    let rows = ran.records("row");
    assert_eq!(
        (&rows[0]["row"], &rows[0]["nfe"], &rows[0]["images"]),
        (&"DPS".into(), &2.into(), &3.into())
    );
    let [mean, low, high] = [0, 1, 2].map(|i| rows[1]["means"]["psnr"][i].as_f64().unwrap());
    assert!(low <= mean && mean <= high && low < high);
    assert_eq!(
        (read("results.csv"), read("tables.md")),
        (results.clone(), tables)
    );

    // another config is refused by what differs
    config(dir.path(), "steps = 1\n[[row]]\nname = 'new'\n");
    run(dir.path(), "study s.toml -o out/a").expect(
        2,
        &[
            "row.2.steps was nothing and is 1",
            "row.3.name was nothing and is \"new\"",
            "another folder",
        ],
    );
    assert_eq!(read("results.csv"), results);
    fs::remove_file(out.join("config.toml")).unwrap();
    run(dir.path(), "study s.toml -o out/a").expect(2, &["config.toml", "cannot be read"]);
}

#[test]
fn of_the_same_models_it_goes_on_and_of_others_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    config(dir.path(), "");
    let file = dir.path().join("s.toml");
    let out = dir.path().join("out");
    run(dir.path(), "study s.toml -o out").expect(0, &["6 done"]);
    let first = fs::read_to_string(&file).unwrap();
    let results = fs::read(out.join("results.csv")).unwrap();
    // The same weights elsewhere, and what changes no result.
    let model = dir.path().join("m");
    copy(&oracle::checkpoint("tiny-pixel"), &model);
    let place = oracle::checkpoint("tiny-pixel").display().to_string();
    let same = first.replace(&place, "m");
    let same = format!("sheet = 1\noffload = '.'\ndevice = 'cpu'\n{same}");
    fs::write(&file, &same).unwrap();
    run(dir.path(), "study s.toml -o out").expect(0, &["0 done, 6 skipped"]);
    assert_eq!(fs::read_to_string(out.join("config.toml")).unwrap(), same);

    fs::write(&file, format!("precision = 'f64'\n{same}")).unwrap();
    let named = [
        "--precision: wanted f32",
        "study.json",
        "got f64; choose another folder",
    ];
    run(dir.path(), "study s.toml -o out").expect(2, &named);
    // Another schedule under the same name.
    fs::write(&file, &same).unwrap();
    let schedule = model.join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&schedule).unwrap();
    fs::write(&schedule, text.replace("0.02", "0.03")).unwrap();
    run(dir.path(), "study s.toml -o out").expect(2, &["--model: wanted "]);
    assert_eq!(fs::read_to_string(out.join("config.toml")).unwrap(), same);
    assert!(fs::read(out.join("results.csv")).unwrap() == results);
}

#[test]
fn records_and_failures() {
    let dir = tempfile::tempdir().unwrap();
    config(
        dir.path(),
        "[[row]]\nname = 'wild'\nmethod = 'dps'\nzeta = 1e300\nsteps = 3\n",
    );
    let ran = run(dir.path(), "study s.toml -o out --json").expect(3, &["wild on sr4", "3 failed"]);
    let items = ran.records("item");
    assert_eq!(items.len(), 9);
    assert!(items[0]["psnr"].is_number() && items[0]["nfe"] == 2);
    assert_eq!(
        (&items[8]["verdict"], &items[8]["psnr"]),
        (&"failed".into(), &serde_json::Value::Null)
    );
    assert_eq!(ran.records("row")[2]["failed"], 3);
    // What failed is tried again, and fails again.
    run(dir.path(), "study s.toml -o out").expect(3, &["wild on sr4", "6 skipped, 3 failed"]);
    let tables = fs::read_to_string(dir.path().join("out/tables.md")).unwrap();
    assert!(
        tables.contains("- scene 2 of seed 0: diverged at step"),
        "{tables}"
    );
}

#[test]
fn what_cannot_be_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = |model: &str, images: &str| {
        let text = format!(
            "model = '{model}'\n{images}\ntasks = ['sr4']\n[[row]]\nname = 'A'\nsteps = 1\n"
        );
        fs::write(dir.path().join("s.toml"), text).unwrap();
    };
    fs::create_dir(dir.path().join("empty")).unwrap();
    let model = oracle::checkpoint("tiny-pixel").display().to_string();
    let line = "study s.toml -o out";
    text("nowhere", "scenes = { count = 1, size = '32x32' }");
    run(dir.path(), line).expect(1, &["nowhere"]);
    text(&model, "input = 'empty'");
    run(dir.path(), line).expect(1, &["empty: holds no images"]);
    text(&model, "input = 'missing'");
    run(dir.path(), line).expect(1, &["missing"]);
    text(&model, "scenes = { count = 1, size = '8x8' }");
    run(dir.path(), line).expect(2, &["32 to 8192"]);
    text(&model, "scenes = { count = 9000000000000, size = '32x32' }");
    run(dir.path(), line).expect(2, &["s.toml", "`scenes.count`", "at most 65536"]);
    text(&model, "scenes = { count = 1, size = '32x32' }\ncolour = 1");
    run(dir.path(), line).expect(2, &["s.toml", "got `colour`"]);
    run(dir.path(), "study nowhere.toml -o out").expect(2, &["nowhere.toml"]);
    assert_eq!(tree(dir.path()), ["s.toml"]);
    let ran = run(dir.path(), "study --help").expect(0, &[]);
    for part in [
        "scenes = {",
        "zeta = X",
        "dmap-full",
        "inpaint",
        "batch = auto|N",
    ] {
        assert!(ran.stdout.contains(part), "{part} in\n{}", ran.stdout);
    }
}

#[test]
fn a_report_has_tables_results_and_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "[[row]]\nname = 'A <&\"> B'\nmethod = 'dps'\nzeta = 1e300\nsteps = 3\n";
    config(dir.path(), &format!("{evil}# <!-- & -->\n"));
    let text = fs::read_to_string(dir.path().join("s.toml")).unwrap();
    fs::write(dir.path().join("s.toml"), format!("sheet = 2\n{text}")).unwrap();
    run(dir.path(), "study s.toml -o out --report").expect(3, &["3 failed"]);
    let out = dir.path().join("out");
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    whole(&html);
    // Three tables of rows, and a heading of the pictures.
    let name = "A &lt;&amp;&quot;&gt; B";
    assert_eq!(html.matches(&format!("<td>{name}</td>")).count(), 2 + 3 + 3);
    assert!(html.contains(&format!("<th>{name}</th>")));
    assert!(html.contains("# &lt;!-- &amp; --&gt;") && !html.contains("<!--"));
    // Truth, measurement and two rows of two images; the third row failed.
    let sizes: Vec<_> = pictures(&html).iter().map(|p| p.width).collect();
    assert_eq!(sizes, [32, 8, 32, 32, 32, 8, 32, 32]);
    assert_eq!(html.matches("<td>failed</td>").count(), 2);
    let (rows, _) = csv::read(&fs::read_to_string(out.join("results.csv")).unwrap());
    assert_eq!(rows.len(), 10);
    for cell in rows.iter().skip(1).flat_map(|row| &row[3..8]) {
        let cell = format!("<td class=\"number\">{cell}</td>");
        assert!(html.contains(&cell), "{cell}");
    }
    let tables = fs::read_to_string(out.join("tables.md")).unwrap();
    let means = tables
        .lines()
        .find(|line| line.starts_with("| DPS |"))
        .unwrap();
    for cell in means.split(" | ").skip(1).take(5) {
        assert!(html.contains(&format!(">{cell}</td>")), "{cell}");
    }
}
