//! A measurement file: read, written, read again; its operator measures a small image.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posteriori::Cx;
use posteriori::io::image::Image;
use posteriori::operators::Measurement;
use posteriori_fuzz::told;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Some(read) = told(Measurement::from_json("y.measurement.json", text)) else {
        return;
    };
    let written = read.to_json().expect("what was read can be written");
    let again = Measurement::from_json("again", &written).expect("what was written can be read");
    assert_eq!(again.to_json().expect("and written"), written);
    let [h, w] = read.image_size;
    if h * w > 32 * 32 {
        return;
    }
    let Some(operator) = told(read.operator(&Cx::native())) else {
        return;
    };
    assert!(operator.measurement_shape().iter().all(|n| *n > 0));
    let image = Image::new(w, h, vec![0.25; h * w * 3]).expect("a grey image");
    if let Some(y) = told(read.measure(&image, 1)) {
        told(y.check("y"));
    }
});
