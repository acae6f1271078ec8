//! temporary
/// temporary
#[derive(Debug)]
pub struct Mapped;
impl Mapped {
    /// temporary
    pub fn bytes(&self) -> &[u8] {
        &[]
    }
}
