//! Every variant of every op against the textbook loops in f64.

use posteriori::ops;

#[test]
fn every_variant_is_within_the_computed_bound() {
    for op in ops::ALL {
        for row in op.check().unwrap() {
            assert!(
                row.passed(),
                "{} {} on {}: {:.2} of the bound, {}",
                row.op,
                row.variant,
                row.case,
                row.used,
                row.worst
            );
        }
    }
}
