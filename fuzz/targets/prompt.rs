//! A prompt, under a small tokenizer: bytes, a few merges, CLIP's special tokens.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::models::tokenizer::{CONTEXT, Tokenizer};
use posteriori_fuzz::Folder;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let folder = Folder::new();
    let pieces = [
        "a", "b", "c", "'", "s</w>", "a</w>", "b</w>", "ab", "ab</w>", "aba", "abab</w>",
    ];
    let marks = ["<|startoftext|>", "<|endoftext|>", "!"];
    let all = pieces.iter().chain(&marks).enumerate();
    let entries: Vec<String> = all.map(|(id, piece)| format!("{piece:?}: {id}")).collect();
    folder.put(
        "vocab.json",
        format!("{{{}}}", entries.join(", ")).as_bytes(),
    );
    folder.put(
        "merges.txt",
        b"#version: 0.2\na b\na b</w>\nab a\nab ab</w>\n",
    );
    let specials = br#"{"pad_token": {"content": "!", "normalized": true}}"#;
    folder.put("special_tokens_map.json", specials);
    Tokenizer::open(folder.path()).expect("a tokenizer that is right")
});

fuzz_target!(|input: &[u8]| {
    let ids = TOKENIZER.encode(&String::from_utf8_lossy(input));
    assert_eq!(ids.len(), CONTEXT);
    let rows = TOKENIZER.vocabulary() as i32;
    assert!(ids.iter().all(|id| (0..rows).contains(id)));
});
