//! Where training images come from.
