//! The header of a safetensors file, checked before anything is believed.
//! The crate parses it; what the crate lets pass (a name twice, lengths whose sum overflows) is refused here.
//! Reasons come back as text: the caller knows the path.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

/// Headers longer than this are refused before they are parsed, as the reference reader does.
const MAX_HEADER: usize = 100_000_000;
/// Bytes of the length in front of the header.
pub(super) const LENGTH: usize = size_of::<u64>();

/// A JSON object in which no key comes twice. serde's own maps keep the last one silently.
pub(super) struct Unique<V>(pub(super) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Walk<V> {
            type Value = Unique<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a value for each tensor name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if all.contains_key(&name) {
                        return Err(A::Error::custom(format!("`{name}` comes twice")));
                    }
                    all.insert(name, value);
                }
                Ok(Unique(all))
            }
        }
        deserializer.deserialize_map(Walk(PhantomData))
    }
}

/// Where the tensor bytes begin, and what lies there. The crate checks that the offsets tile the data and agree
/// with kinds and shapes; its own `read_metadata` is not called because it adds file-controlled lengths unchecked.
pub(super) fn header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let again = "download or copy it again";
    if bytes.starts_with(b"version https://git-lfs") {
        return Err("it is a Git LFS pointer, not the weights; run `git lfs pull`".into());
    }
    let Some(length) = bytes.first_chunk::<LENGTH>() else {
        return Err(format!(
            "{} bytes is too short for a header; {again}",
            bytes.len()
        ));
    };
    let length = u64::from_le_bytes(*length);
    let end = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(LENGTH);
    let Some(json) = bytes.get(LENGTH..end) else {
        let size = bytes.len();
        return Err(format!(
            "its header should be {length} bytes long, the whole file is {size}: it is cut short or no safetensors file; {again}"
        ));
    };
    if json.len() > MAX_HEADER {
        return Err(format!(
            "its header is {length} bytes long, the most allowed is {MAX_HEADER}"
        ));
    }
    let wrong = |e: serde_json::Error| format!("its header is damaged: {e}; {again}");
    serde_json::from_slice::<Unique<IgnoredAny>>(json).map_err(wrong)?;
    let metadata: Metadata = serde_json::from_slice(json).map_err(wrong)?;
    let (want, got) = (metadata.data_len(), bytes.len() - end);
    if want != got {
        return Err(format!(
            "its header describes {want} bytes of tensors, the file holds {got}; {again}"
        ));
    }
    Ok((end, metadata))
}
