//! A tokenizer folder and a prompt: the ids are 77, and the vocabulary's.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posteriori::models::tokenizer::{CONTEXT, Tokenizer};
use posteriori_fuzz::{Folder, files, told};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);

fuzz_target!(|input: &[u8]| {
    let [vocabulary, merges, specials, settings, prompt] = files(input);
    FOLDER.put("vocab.json", vocabulary);
    FOLDER.put("merges.txt", merges);
    FOLDER.put_some("special_tokens_map.json", specials);
    FOLDER.put_some("tokenizer_config.json", settings);
    let Some(tokenizer) = told(Tokenizer::open(FOLDER.path())) else {
        return;
    };
    let ids = tokenizer.encode(&String::from_utf8_lossy(prompt));
    assert_eq!(ids.len(), CONTEXT);
    let rows = tokenizer.vocabulary();
    assert!(
        ids.iter()
            .all(|id| usize::try_from(*id).is_ok_and(|id| id < rows))
    );
});
