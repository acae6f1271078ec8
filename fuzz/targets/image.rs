//! An image file of any kind: what comes is a picture of finite numbers in [-1, 1], or a reason; as a measurement, any finite
//! numbers; as levels, three for each pixel.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::io::image::{Levels, read, read_values};
use posteriori_fuzz::{Folder, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let file = FOLDER.put("image", input);
    let picture = told(read(&file));
    if let Some(image) = &picture {
        assert!(image.pixels.iter().all(|v| (-1.0..=1.0).contains(v)));
    }
    let values = told(read_values(&file));
    if let Some(image) = &values {
        image.check("image").expect("its sizes agree");
        assert!(image.pixels.iter().all(|v| v.is_finite()));
    }
    assert!(picture.is_none() || picture == values);
    if let Some(levels) = told(Levels::read(&file)) {
        let same = levels.compare(&levels).expect("its sizes agree");
        assert_eq!(same.pixels, 0);
        assert_eq!(levels.values.len(), levels.width * levels.height * 3);
    }
});
