//! `restore --report`: the page holds together, shows what was made, and counts what was not.

use std::fs;

use posteriori::batch::journal::{Journal, Line};
use posteriori::io::image;

use super::{folder, picture, run, tree};
use crate::report::{pictures, whole};

const RESTORE: &str = "restore -i y -o x --model PIXEL --method dmap --steps 3 -q --report";

#[test]
fn a_run_is_one_page() {
    // Neither file system nor HTML may stumble over a name.
    let evil = match cfg!(unix) {
        true => "<b>&.png",
        false => "b&.png",
    };
    let dir = folder(&["a.png", "c.png", evil]);
    fs::write(dir.path().join("y/bad<i>.png"), "no picture").unwrap();
    let line = format!("{RESTORE} --task sr8 --format png16");
    run(dir.path(), &line).expect(3, &["bad<i>.png"]);
    let page = || fs::read_to_string(dir.path().join("x/report.html")).unwrap();
    let html = page();
    whole(&html);
    let escaped = evil
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    for said in [
        escaped.as_str(),
        "bad&lt;i&gt;.png",
        "is no image",
        "3, of which",
        "0, which were there already",
    ] {
        assert!(html.contains(said), "{said}: {html}");
    }
    for name in [
        "model_hash",
        "tiny-pixel",
        "dmap",
        "3 (flag)",
        "images an hour",
        "computing",
    ] {
        assert!(html.contains(name), "{name}");
    }
    // Measurement and result of each image, as they are but for 8 bits.
    let shown = pictures(&html);
    assert_eq!(shown.len(), 6);
    for name in ["a.png", "c.png", evil] {
        for folder in ["y", "x"] {
            let file = image::read(dir.path().join(folder).join(name)).unwrap();
            let near = |a: &f32, b: &f32| (a - b).abs() <= 1.01 / 255.0;
            let like = |other: &&image::Image| {
                let pairs = other.pixels.iter().zip(&file.pixels);
                other.pixels.len() == file.pixels.len() && pairs.clone().all(|(a, b)| near(a, b))
            };
            assert!(shown.iter().find(like).is_some(), "{folder}/{name}");
        }
    }
    // A run that goes on tells apart what it did itself, and shows all the same.
    let before = Journal::read(&dir.path().join("x/.posteriori/journal.jsonl")).unwrap();
    fs::remove_file(dir.path().join("x/c.png")).unwrap();
    fs::remove_file(dir.path().join("y/bad<i>.png")).unwrap();
    run(dir.path(), &line).expect(0, &[]);
    let html = page();
    whole(&html);
    let again = pictures(&html);
    assert_eq!(again.len(), 6);
    assert!(shown.iter().all(|one| again.contains(one)));
    for said in [
        "1, of which",
        "2, which were there already; 2 of earlier runs",
    ] {
        assert!(html.contains(said), "{said}");
    }
    for line in before {
        if let Line::Item(done) = line {
            let residual = format!("{:.4}", done.residual);
            assert!(html.contains(&residual), "{}: {residual}", done.item);
        }
    }
    assert!(!html.contains("bad"), "{html}");
    let mut notes = tree(&dir.path().join("x/.posteriori"));
    notes.retain(|name| name != "journal.jsonl");
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn what_is_no_picture_is_shown_by_its_logarithm() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("clean")).unwrap();
    picture(32, 32, 1)
        .save(dir.path().join("clean/a.png"))
        .unwrap();
    run(dir.path(), "degrade -i clean -o y --task phase -q").expect(0, &[]);
    run(dir.path(), &format!("{RESTORE} --format png")).expect(0, &[]);
    let html = fs::read_to_string(dir.path().join("x/report.html")).unwrap();
    whole(&html);
    let [y, x] = pictures(&html).try_into().unwrap();
    // In the size of the image; its largest value is white.
    assert_eq!([y.height, y.width], [32, 32]);
    assert_eq!(y.pixels.iter().copied().fold(-1.0, f32::max), 1.0);
    assert_eq!(x, image::read(dir.path().join("x/a.png")).unwrap());
}

#[test]
fn shards_have_a_page_each_and_a_single_image_none() {
    let dir = folder(&["a.png", "b.png", "c.png"]);
    for shard in 0..2 {
        run(
            dir.path(),
            &format!("{RESTORE} --task sr8 --shard {shard}/2"),
        )
        .expect(0, &[]);
    }
    let shown = |shard| {
        let html = fs::read_to_string(dir.path().join(format!("x/report-{shard}-of-2.html")));
        pictures(&html.unwrap()).len()
    };
    assert_eq!(shown(0) + shown(1), 6);
    let single = RESTORE.replace("-i y -o x", "-i y/a.png -o z.png --task sr8");
    run(dir.path(), &single).expect(2, &["--report", "posteriori info"]);
}
