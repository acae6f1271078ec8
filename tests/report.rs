//! Reports: one page that holds together, loads nothing and shows what was put in.

use std::fs;

use posteriori::io::image::{self, Format, Image};
use posteriori::report::{Cell, Page, Picture, Rows};

/// Fails unless every tag of the page is closed, every `<` and `&` of its texts escaped, and nothing is to be loaded.
#[track_caller]
pub(crate) fn whole(html: &str) {
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    let mut open: Vec<&str> = Vec::new();
    let mut rest = body;
    while let Some((text, after)) = rest.split_once('<') {
        entities(text);
        let (tag, after) = after.split_once('>').expect("a tag ends");
        assert!(!tag.contains('<'), "`<` in the tag {tag}");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed in this order");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
        assert_ne!(name, "script");
        attributes(tag.strip_suffix('/').unwrap_or(tag), name.len());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!((open.len(), rest.trim()), (0, ""), "{open:?}");
    for loaded in ["http:", "https:", "url(", "@import"] {
        assert!(!html.contains(loaded), "{loaded}");
    }
}

fn attributes(tag: &str, mut at: usize) {
    while let Some((name, after)) = tag[at..].split_once("=\"") {
        let (value, after) = after.split_once('"').expect("a value ends");
        entities(value);
        let name = name.trim();
        assert!(!["href", "onload", "style"].contains(&name), "{name}");
        assert!(name != "src" || value.starts_with("data:image/png;base64,"));
        at = tag.len() - after.len();
    }
    assert!(tag[at..].trim().is_empty(), "{tag}");
}

fn entities(text: &str) {
    for (i, _) in text.match_indices('&') {
        let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        let known = known.iter().any(|entity| text[i..].starts_with(entity));
        assert!(known, "{}", &text[i..]);
    }
}

/// Every picture of a page.
pub(crate) fn pictures(html: &str) -> Vec<Image> {
    use base64::Engine;
    let dir = tempfile::tempdir().unwrap();
    let after = html.split("data:image/png;base64,").skip(1);
    after
        .map(|rest| {
            let text = rest.split('"').next().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let file = dir.path().join("p.png");
            fs::write(&file, bytes.unwrap()).unwrap();
            image::read(file).unwrap()
        })
        .collect()
}

fn html(page: &Page) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.html");
    page.write(&file).unwrap();
    let html = fs::read_to_string(file).unwrap();
    whole(&html);
    html
}

fn ramp(height: usize, width: usize) -> Image {
    let value = |i: usize| (i / 3 % width) as f32 / width as f32;
    Image::new(width, height, (0..height * width * 3).map(value).collect()).unwrap()
}

#[test]
fn every_part_is_there_and_escaped() {
    const EVIL: &str = "<script>\"a\" & 'b'</script>\0";
    const ESCAPED: &str = "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;\u{fffd}";
    let picture = Picture::of(&ramp(4, 6), 100).unwrap();
    let mut page = Page::new(EVIL);
    page.heading(EVIL).text(EVIL).code(EVIL);
    page.facts([(EVIL, EVIL)]);
    let row = vec![EVIL.into(), Cell::number(1.5), picture.clone().into()];
    page.table(&[EVIL, "n", "picture"], [row, vec!["short".into()]]);
    page.svg(
        EVIL,
        "<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 0\"/></svg>\n",
    );
    page.figures([(EVIL, picture)]);
    let html = html(&page);
    // Title and heading of the page; three elements; name and value; head and cell; caption of a plot; of a picture, and its alt.
    assert_eq!(html.matches(ESCAPED).count(), 2 + 3 + 2 + 2 + 1 + 2);
    assert!(html.contains("<th class=\"number\">n</th><th>picture</th>"));
    assert!(html.contains(
        "<td class=\"number\">1.5</td><td><img class=\"crisp\" width=\"6\" height=\"4\""
    ));
    assert!(html.contains("<td>short</td><td></td><td></td></tr>"));
    assert_eq!(pictures(&html).len(), 2);
}

#[test]
fn a_picture_keeps_its_pixels_or_their_means() {
    let of = |image: &Image, most| {
        let mut page = Page::new("t");
        page.figures([("", Picture::of(image, most).unwrap())]);
        pictures(&html(&page)).remove(0)
    };
    let near = |a: f32, b: f32| (a - b).abs() < 1.01 / 255.0;
    let image = ramp(8, 12);
    let same = of(&image, 12);
    assert_eq!((same.height, same.width), (8, 12));
    assert!(
        same.pixels
            .iter()
            .zip(&image.pixels)
            .all(|(a, b)| near(*a, *b))
    );
    let half = of(&image, 6);
    assert_eq!((half.height, half.width), (4, 6));
    // Columns 2x and 2x + 1 of the ramp, whose mean is (2x + 1/2) / 12.
    let mean = |i: usize| (2.0 * (i / 3 % 6) as f32 + 0.5) / 12.0;
    assert!((0..half.pixels.len()).all(|i| near(half.pixels[i], mean(i))));
    // Whatever the factor, a plain picture stays plain and no side vanishes.
    for (h, w, most) in [(7, 1000, 100), (1000, 1, 3), (5, 4, 3), (101, 97, 96)] {
        let plain = Image::new(w, h, vec![0.5; h * w * 3]).unwrap();
        let small = of(&plain, most);
        assert_eq!(small.height.max(small.width), most);
        assert!(small.pixels.iter().all(|v| near(*v, 0.5)));
    }
}

#[test]
fn what_is_no_picture_is_refused() {
    let png = image::encode(&ramp(3, 200), Format::Png, &[]).unwrap();
    let mut page = Page::new("t");
    page.figures([("a", Picture::from_png(png.clone()).unwrap())]);
    let html = html(&page);
    assert!(html.contains("<img width=\"200\" height=\"3\" alt=\"a\""));
    for bytes in [&b"GIF89a"[..], &png[..20], &[]] {
        let error = Picture::from_png(bytes.to_vec()).unwrap_err().to_string();
        assert!(error.contains("wanted the bytes of a PNG file"), "{error}");
    }
    let error = Picture::of(&ramp(3, 4), 0).unwrap_err().to_string();
    assert!(error.contains("at least 1, got 0"), "{error}");
    let mut broken = ramp(3, 4);
    broken.pixels[5] = f32::NAN;
    assert!(Picture::of(&broken, 4).is_err());
    broken.pixels.pop();
    assert!(Picture::of(&broken, 4).is_err());
}

#[test]
fn many_rows() {
    let picture = Picture::of(&ramp(4, 4), 4).unwrap();
    let mut page = Page::new("t");
    let row = |i: usize| vec![format!("image {i}").into(), picture.clone().into()];
    page.table(&["item", "result"], (0..10_000).map(row));
    assert_eq!(html(&page).matches("<tr>").count(), 10_001);
}

#[test]
fn rows_in_a_file_are_the_rows_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows");
    let head = ["name", "<n>", "more"];
    let rows = || {
        let picture = Picture::of(&Image::new(1, 1, vec![0.0; 3]).unwrap(), 8).unwrap();
        vec![
            vec!["<&>\"".into(), Cell::number(1), Cell::Picture(picture)],
            vec!["short".into()],
        ]
    };
    let mut page = Page::new("t");
    let mut kept = Rows::new(&file, &head);
    assert!(kept.is_empty() && !file.exists());
    rows().iter().for_each(|row| kept.add(row).unwrap());
    assert_eq!(kept.len(), 2);
    page.text("before").rows(kept).unwrap().text("between");
    page.rows(Rows::new(dir.path().join("none"), &head))
        .unwrap()
        .text("after");
    let mut plain = Page::new("t");
    plain
        .text("before")
        .table(&head, rows())
        .text("between")
        .text("after");
    assert_eq!(html(&page), html(&plain));
    assert!(file.exists());
    drop(page);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let error = Rows::new(dir.path().join("no/rows"), &head)
        .add(&["x".into()])
        .unwrap_err();
    assert!(error.to_string().contains("no/rows"), "{error}");
}
