//! CLIP's byte-pair tokenizer: a prompt becomes the 77 ids that the text encoder takes.
//! NFC, white space to one blank, lower case; split into words; each word's bytes merged pair by pair in the
//! order of `merges.txt`, its last piece marked `</w>`; start, at most 75 ids, end, padding.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::Path;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::error::{Error, Result};

/// What [`Tokenizer::open`] reads of a folder.
pub const FILES: [&str; 4] = [
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

/// Ids in an encoded prompt.
pub const CONTEXT: usize = 77;

/// Those between start and end.
const ROOM: usize = CONTEXT - 2;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";

/// A tokenizer, read from the `tokenizer/` folder of a checkpoint.
#[derive(Debug)]
pub struct Tokenizer {
    /// The id of a byte inside a word, and of the byte that ends one.
    bytes: Vec<[i32; 2]>,
    /// A pair of ids: how early it is merged, and into what.
    merges: HashMap<(i32, i32), (usize, i32)>,
    specials: Vec<Special>,
    vocabulary: usize,
    start: i32,
    end: i32,
    padding: i32,
}

/// A token that is recognised in the text as a whole, before words are split.
#[derive(Debug)]
struct Special {
    text: String,
    id: i32,
    /// Looked for after lower-casing, not before.
    normalized: bool,
}

impl Tokenizer {
    /// Reads `vocab.json` and `merges.txt`; and, if they are there, `special_tokens_map.json` and after it
    /// `tokenizer_config.json` for the special tokens (Stable Diffusion 2 pads with `!`, 1 with the end token).
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join("vocab.json");
        let vocab: HashMap<String, i32> = serde_json::from_str(&text(&path)?)
            .map_err(|e| bad(&path, format!("wanted an object of token: id: {e}")))?;
        if let Some((token, id)) = vocab.iter().find(|(_, id)| **id < 0) {
            return Err(bad(&path, format!("`{token}` has the negative id {id}")));
        }
        let mut settings = Vec::new();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            let path = folder.join(name);
            if path.exists() {
                let value: Value = serde_json::from_str(&text(&path)?)
                    .map_err(|e| bad(&path, format!("is no JSON: {e}")))?;
                settings.push((path, value));
            }
        }
        let mut specials: Vec<Special> = Vec::new();
        let mut id = |key: &str, usual: &str| -> Result<i32> {
            let (text, normalized) = special(&settings, key, usual)?;
            let id = *vocab
                .get(&text)
                .ok_or_else(|| bad(&path, format!("lacks `{text}`, the {key}")))?;
            // The last word on a token counts: as padding it may be looked for otherwise than as end.
            specials.retain(|s| s.id != id);
            specials.push(Special {
                text,
                id,
                normalized,
            });
            Ok(id)
        };
        let (start, end) = (id("bos_token", START)?, id("eos_token", END)?);
        let (unknown, padding) = (id("unk_token", END)?, id("pad_token", END)?);
        let piece = |token: String| vocab.get(&token).copied().unwrap_or(unknown);
        let bytes = byte_characters()
            .map(|c| [piece(c.to_string()), piece(format!("{c}{WORD_END}"))])
            .collect();
        let highest = vocab.values().max().map_or(0, |&id| id as usize + 1);
        Ok(Tokenizer {
            bytes,
            merges: read_merges(&folder.join("merges.txt"), &vocab)?,
            specials,
            vocabulary: highest,
            start,
            end,
            padding,
        })
    }

    /// The 77 ids of a prompt: start, its first 75, end, padding. The empty prompt is `encode("")`.
    pub fn encode(&self, text: &str) -> Vec<i32> {
        let mut ids = self.ids(text, ROOM);
        ids.truncate(ROOM);
        ids.insert(0, self.start);
        ids.push(self.end);
        ids.resize(CONTEXT, self.padding);
        ids
    }

    /// How many ids of a prompt there is no room for.
    pub fn cut(&self, text: &str) -> usize {
        self.ids(text, usize::MAX).len().saturating_sub(ROOM)
    }

    /// The ids of a text, all of them or at least the first `enough`.
    fn ids(&self, text: &str, enough: usize) -> Vec<i32> {
        let mut ids = Vec::new();
        self.pieces(text, false, enough, &mut ids, |text, ids| {
            let normal = normalize(text);
            self.pieces(&normal, true, enough, ids, |text, ids| {
                for word in words(text) {
                    if ids.len() >= enough {
                        break;
                    }
                    self.merge(word, ids);
                }
            });
        });
        ids
    }

    /// One more than the highest id: the rows that the token embedding must have.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Cuts text at the special tokens of one sort: their ids go to `ids`, what lies between to `rest`.
    fn pieces(
        &self,
        text: &str,
        normalized: bool,
        enough: usize,
        ids: &mut Vec<i32>,
        mut rest: impl FnMut(&str, &mut Vec<i32>),
    ) {
        let specials = || self.specials.iter().filter(|s| s.normalized == normalized);
        let (mut from, mut at) = (0, 0);
        while at < text.len() && ids.len() < enough {
            let here = specials().filter(|s| text[at..].starts_with(&s.text));
            if let Some(special) = here.max_by_key(|s| s.text.len()) {
                rest(&text[from..at], ids);
                ids.push(special.id);
                at += special.text.len();
                from = at;
            } else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        if ids.len() < enough {
            rest(&text[from..], ids);
        }
    }

    /// Appends the ids of one word: of all neighbouring pairs the one merged earliest, leftmost first,
    /// until none is left.
    fn merge(&self, word: &str, ids: &mut Vec<i32>) {
        let bytes = word.as_bytes();
        let last = bytes.len().saturating_sub(1);
        // A piece eaten by its left neighbour is none. `next` of the last piece is past the end.
        let mut pieces: Vec<Option<i32>> = (0..bytes.len())
            .map(|i| Some(self.bytes[usize::from(bytes[i])][usize::from(i == last)]))
            .collect();
        let mut next: Vec<usize> = (1..=bytes.len()).collect();
        let mut previous: Vec<usize> = (0..bytes.len()).map(|i| i.wrapping_sub(1)).collect();
        let mut queue = BinaryHeap::new();
        let pair = |pieces: &[Option<i32>], left: usize, right: usize| {
            let key = ((*pieces.get(left)?)?, (*pieces.get(right)?)?);
            let &(rank, id) = self.merges.get(&key)?;
            Some(Reverse((rank, left, key, id)))
        };
        queue.extend((0..last).filter_map(|i| pair(&pieces, i, i + 1)));
        while let Some(Reverse((_, left, key, id))) = queue.pop() {
            let right = next[left];
            // An entry outlives its pair when a neighbour was merged first.
            let now = (pieces[left], pieces.get(right).copied().flatten());
            if now != (Some(key.0), Some(key.1)) {
                continue;
            }
            pieces[left] = Some(id);
            pieces[right] = None;
            next[left] = next[right];
            if let Some(back) = previous.get_mut(next[left]) {
                *back = left;
            }
            queue.extend(pair(&pieces, previous[left], left));
            queue.extend(pair(&pieces, left, next[left]));
        }
        ids.extend(pieces.into_iter().flatten());
    }
}

fn text(path: &Path) -> Result<String> {
    let failed = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|e| bad(path, format!("is no UTF-8 text: {e}")))
}

fn bad(path: &Path, why: String) -> Error {
    Error::config(path.display().to_string(), why)
}

/// A special token and whether it is looked for in normalized text: from the first file that has it.
fn special(
    settings: &[(std::path::PathBuf, Value)],
    key: &str,
    usual: &str,
) -> Result<(String, bool)> {
    for (path, value) in settings {
        let token = match value.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => (text.clone(), false),
            Some(object) => {
                let flag = |name: &str| object.get(name).and_then(Value::as_bool) == Some(true);
                if let Some(name) = ["lstrip", "rstrip", "single_word"].iter().find(|n| flag(n)) {
                    return Err(bad(path, format!("{key}: `{name}` is not supported")));
                }
                let Some(text) = object.get("content").and_then(Value::as_str) else {
                    let why = format!("{key}: wanted a string or an object with `content`");
                    return Err(bad(path, format!("{why}, got {object}")));
                };
                (text.to_owned(), flag("normalized"))
            }
        };
        if token.0.is_empty() {
            return Err(bad(path, format!("{key} is empty")));
        }
        return Ok(token);
    }
    Ok((usual.to_owned(), false))
}

type Merges = HashMap<(i32, i32), (usize, i32)>;

fn read_merges(path: &Path, vocab: &HashMap<String, i32>) -> Result<Merges> {
    let text = text(path)?;
    let mut merges = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let wrong = |why: String| bad(path, format!("line {}: {why}", number + 1));
        let (a, b) = line
            .split_once(' ')
            .filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '))
            .ok_or_else(|| wrong(format!("wanted two pieces, got `{line}`")))?;
        let id = |piece: &str| {
            let id = vocab.get(piece).copied();
            id.ok_or_else(|| wrong(format!("`{piece}` is not in vocab.json")))
        };
        merges.insert((id(a)?, id(b)?), (number, id(&format!("{a}{b}"))?));
    }
    if merges.is_empty() {
        return Err(bad(path, "holds no merges".to_owned()));
    }
    Ok(merges)
}

/// The printable character that stands for each byte: itself where Latin-1 prints it, else one from U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let mut spare = '\u{100}'..;
    (0..=255u8).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => spare
            .next()
            .expect("there are 68 such bytes and more characters"),
    })
}

/// Character by character: a final sigma becomes the same as any other.
fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    for c in text.nfc() {
        if c.is_whitespace() {
            if !blank {
                out.push(' ');
            }
            blank = true;
        } else {
            out.extend(c.to_lowercase());
            blank = false;
        }
    }
    out
}

/// Unicode's L: of what Rust calls alphabetic, not the numerals, marks and circled letters.
fn is_letter(c: char) -> bool {
    let circled = matches!(c,
        '\u{24b6}'..='\u{24e9}'
        | '\u{1f130}'..='\u{1f149}'
        | '\u{1f150}'..='\u{1f169}'
        | '\u{1f170}'..='\u{1f189}');
    c.is_alphabetic() && !c.is_numeric() && !is_combining_mark(c) && !circled
}

/// CLIP's pattern: `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`, the first that fits.
/// A special token spelled out (which `pieces` did not take) is three words.
fn words(text: &str) -> impl Iterator<Item = &str> {
    const FIXED: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    let mut rest = text;
    // What is left of a spelled-out special token.
    let mut inside = 0;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        if inside == 0 {
            let whole = [START, END].into_iter().find(|s| rest.starts_with(s));
            inside = whole.map_or(0, str::len);
        }
        let run = |more: fn(char) -> bool| rest.find(|c| !more(c)).unwrap_or(rest.len());
        let length = if inside > 0 {
            match (inside == 2, first) {
                (true, _) | (_, '<') => 2,
                _ => inside - 2,
            }
        } else if let Some(fixed) = FIXED.iter().find(|f| rest.starts_with(**f)) {
            fixed.len()
        } else if is_letter(first) {
            run(is_letter)
        } else if first.is_numeric() {
            first.len_utf8()
        } else {
            run(|c| !c.is_whitespace() && !is_letter(c) && !c.is_numeric())
        };
        inside = inside.saturating_sub(length);
        let (word, after) = rest.split_at(length);
        rest = after;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGES: &str = "t h;th e</w>;i n;in g</w>;a n;an d</w>;h e;he l;l o</w>;hel lo</w>;' s</w>;' t</w>;' l;'l l</w>;c a;ca t</w>;d o;do g</w>;o n;Ã ©;Ã ©</w>;ð Ł;ðŁ ĺ;ðŁĺ Ģ</w>;. .;.. .</w>;! !</w>;a a;aa aa;aa a</w>;aaaa aaaa;x y;y x;xy x</w>;< |;e n;en d;Î £;Ï ĥ</w>;Ï ĥ;å ¤;å¤ §</w>;p h;ph o;pho t;t o</w>;phot o</w>;o f</w>;r e;r e</w>;' re</w>;' v;'v e</w>;' m</w>;' d</w>";

    /// The toy vocabulary: 256 bytes in CLIP's order, the same ending a word, the merges, the two special tokens.
    fn write(folder: &Path, files: &[(&str, &str)]) {
        let (plain, spare): (Vec<char>, Vec<char>) =
            byte_characters().partition(|c| *c < '\u{100}');
        let bytes: Vec<String> = plain.iter().chain(&spare).map(char::to_string).collect();
        let ended = bytes.iter().map(|c| format!("{c}</w>"));
        let merged = MERGES.split(';').map(|m| m.replace(' ', ""));
        let tokens = bytes.iter().cloned().chain(ended).chain(merged);
        let all = tokens.chain([START.to_owned(), END.to_owned()]).enumerate();
        let vocab: HashMap<String, usize> = all.map(|(id, token)| (token, id)).collect();
        let vocab = serde_json::to_string(&vocab).unwrap();
        std::fs::write(folder.join("vocab.json"), vocab).unwrap();
        let merges = format!("#version: 0.2\n{}\n", MERGES.replace(';', "\n"));
        std::fs::write(folder.join("merges.txt"), merges).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    fn token(text: &str) -> String {
        let flags = r#""lstrip":false,"normalized":true,"rstrip":false,"single_word":false"#;
        format!(r#"{{"content":"{text}",{flags}}}"#)
    }

    /// As in stable-diffusion-v1-5 (padding `<|endoftext|>`) and stable-diffusion-2-base (padding `!`).
    fn special_tokens(padding: &str) -> String {
        let (start, end) = (token(START), token(END));
        format!(
            r#"{{"bos_token":{start},"eos_token":{end},"pad_token":"{padding}","unk_token":{end}}}"#
        )
    }

    const CONFIG: &str = r#"{"pad_token":"<|endoftext|>","model_max_length":77}"#;

    fn open(files: &[(&str, &str)]) -> Result<Tokenizer> {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), files);
        Tokenizer::open(dir.path())
    }

    // Text, the ids between start and the first end under SD1's special tokens, the same under SD2's (which pads
    // with 0) where they differ. Made with the folders of `write`, transformers 5.17:
    //   t = CLIPTokenizer.from_pretrained(folder)
    //   t(text, padding="max_length", truncation=True, max_length=77)["input_ids"]
    #[rustfmt::skip]
    const GOLDEN: &[(&str, &[i32], &[i32])] = &[
        ("", &[], &[]),
        ("a photo of the cat", &[320, 558, 559, 513, 527], &[]),
        ("Hello, World!", &[521, 267, 86, 78, 81, 75, 323, 256], &[521, 267, 86, 78, 81, 75, 323, 0]),
        ("HELLO hello HeLLo", &[521, 521, 521], &[]),
        ("it's they're I've I'm we'll he'd don't", &[72, 339, 522, 512, 68, 344, 562, 328, 564, 328, 565, 86, 324, 525, 71, 324, 566, 528, 333, 523], &[]),
        ("IT'S", &[72, 339, 522], &[]),
        ("x'sy 's ''s", &[343, 522, 344, 522, 6, 262, 338], &[]),
        ("12345 3rd 1st ½ ² Ⅷ ٣", &[272, 273, 274, 275, 276, 274, 81, 323, 272, 82, 339, 126, 377, 126, 366, 158, 227, 371, 149, 352], &[]),
        ("and... dog!!! wow?!", &[517, 537, 529, 0, 538, 86, 78, 342, 30, 256], &[517, 537, 529, 0, 0, 0, 86, 78, 342, 286, 0]),
        ("café CAFÉ cafe\u{301} é", &[526, 69, 532, 526, 69, 532, 526, 69, 532, 532], &[]),
        ("ΣΊΣΥΦΟΣ Σ σ ς", &[551, 138, 107, 551, 139, 227, 139, 228, 138, 123, 550, 550, 550, 139, 480], &[]),
        ("大 日本語 漢字", &[553, 162, 245, 98, 162, 250, 105, 164, 103, 508, 162, 120, 95, 161, 255, 501], &[]),
        ("😀 😁👍🏽 👨\u{200d}👩\u{200d}👧", &[535, 534, 223, 533, 239, 235, 533, 237, 377, 533, 239, 101, 158, 222, 235, 533, 239, 102, 158, 222, 235, 533, 239, 356], &[]),
        ("  tabs\u{9}and\u{a}new  lines \u{a0} nbsp\u{3000}x\u{200b}z ", &[83, 64, 65, 338, 517, 77, 68, 342, 75, 514, 68, 338, 77, 65, 82, 335, 343, 158, 222, 489, 345], &[]),
        ("aaaaaaaaaaaaaaaaaaa aaa aa a", &[542, 542, 541, 541, 64, 320, 320], &[]),
        ("xyxyxyx yxyxyx", &[543, 543, 545, 88, 543, 545], &[]),
        ("end<|endoftext|>hello", &[547, 323, 568, 521], &[]),
        ("<|startoftext|> cat", &[567, 527], &[]),
        ("<|ENDOFTEXT|> the <|StartOfText|>", &[27, 347, 547, 528, 69, 83, 68, 87, 339, 91, 285, 513, 567], &[568, 513, 567]),
        ("<| end |> <|end|>", &[27, 347, 547, 323, 91, 285, 27, 347, 547, 323, 91, 285], &[]),
        ("snake_case kebab-case a.b,c", &[82, 77, 64, 74, 324, 318, 526, 82, 324, 74, 68, 65, 64, 321, 268, 526, 82, 324, 320, 269, 321, 267, 322], &[]),
        ("İstanbul ǅ ﬁ Å Ω", &[328, 136, 485, 82, 83, 516, 65, 84, 331, 131, 484, 171, 105, 479, 127, 354, 139, 487], &[]),
        ("नमस\u{94d}ते हिन\u{94d}दी", &[156, 97, 101, 156, 97, 106, 156, 97, 372, 156, 98, 491, 156, 97, 353, 156, 98, 485, 156, 97, 373, 156, 97, 379, 156, 97, 357, 156, 98, 491, 156, 97, 355, 156, 98, 478], &[]),
        ("ไทย ภาษา", &[156, 117, 226, 156, 116, 245, 156, 116, 351, 156, 116, 254, 156, 116, 110, 156, 116, 102, 156, 116, 366], &[]),
        ("Ⓐ ⓑ ㋿ ™ ª º", &[158, 241, 494, 158, 241, 495, 159, 233, 379, 158, 226, 351, 126, 359, 126, 374], &[]),
        ("\u{301}cat a\u{308} e\u{323}\u{302}", &[136, 479, 527, 127, 353, 157, 119, 485], &[]),
        ("‘smart’ “quotes” — … don’t", &[158, 222, 502, 82, 76, 64, 81, 339, 158, 222, 503, 158, 222, 506, 80, 84, 78, 83, 68, 338, 158, 222, 507, 158, 222, 498, 158, 222, 355, 528, 333, 158, 222, 503, 339], &[]),
        ("\u{0}\u{1} \u{7f} \u{feff} �", &[188, 445, 477, 171, 119, 379, 171, 123, 377], &[]),
        ("𝒳𝓎 𝟘𝟙 𐐀𐐨", &[172, 251, 240, 111, 172, 251, 241, 492, 172, 251, 253, 502, 172, 251, 253, 503, 172, 238, 238, 101, 172, 238, 238, 357], &[]),
        (" !", &[256], &[0]),
        ("hello! !! !the", &[521, 256, 538, 256, 513], &[521, 0, 0, 0, 0, 513]),
        ("()[]{}<>|\\/~`@#$%^&*-=+", &[7, 8, 58, 60, 90, 92, 27, 29, 91, 59, 14, 93, 63, 31, 2, 3, 4, 61, 5, 9, 12, 28, 266], &[]),
        ("한글 각 ᄀ", &[169, 243, 250, 166, 116, 478, 166, 108, 479, 157, 226, 478], &[]),
        ("ʼn ŉ ß ẞ ĳ", &[134, 120, 333, 129, 487, 127, 509, 127, 509, 128, 367], &[]),
        ("'", &[262], &[]),
        ("''", &[6, 262], &[]),
        ("' s", &[262, 338], &[]),
        ("'S'T'RE", &[522, 523, 562], &[]),
        ("1.5x 2,000", &[272, 269, 276, 343, 273, 267, 271, 271, 271], &[]),
        ("\u{2028}\u{2029}\u{85} x\u{1c}y", &[343, 472, 344], &[]),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &[542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 542, 540, 539, 64, 320], &[]),
    ];

    #[test]
    fn agrees_with_transformers() {
        let config = ("tokenizer_config.json", CONFIG);
        let one = special_tokens(END);
        let two = special_tokens("!");
        let one = open(&[("special_tokens_map.json", &one), config]).unwrap();
        let two = open(&[("special_tokens_map.json", &two), config]).unwrap();
        assert_eq!(
            (one.start, one.end, one.padding, two.padding),
            (567, 568, 568, 0)
        );
        assert_eq!(one.vocabulary(), 569);
        for (text, first, second) in GOLDEN {
            let second = if second.is_empty() { first } else { second };
            for (tokenizer, ids) in [(&one, first), (&two, second)] {
                let mut want = [&[567], *ids, &[568]].concat();
                want.resize(77, tokenizer.padding);
                assert_eq!(tokenizer.encode(text), want, "{text:?}");
            }
        }
    }

    #[test]
    fn long_text_is_cut_to_75_ids() {
        let tokenizer = open(&[]).unwrap();
        let ids = tokenizer.encode(&"the cat ".repeat(60));
        let mut want = vec![567];
        want.extend([513, 527].iter().cycle().take(75));
        want.push(568);
        assert_eq!(ids, want);
        for (words, cut) in [(0, 0), (37, 0), (38, 1), (60, 45)] {
            assert_eq!(tokenizer.cut(&"the cat ".repeat(words)), cut);
        }
        // Words of a megabyte, and a text of nothing but special tokens, take no noticeable time.
        for text in [
            "a".repeat(1 << 20),
            "xy".repeat(1 << 19),
            END.repeat(1 << 16),
        ] {
            let ids = tokenizer.encode(&text);
            assert_eq!((ids.len(), ids[0], ids[76]), (77, 567, 568));
        }
        assert_eq!(tokenizer.encode(""), [&[567][..], &[568; 76]].concat());
    }

    #[test]
    fn padding_is_read_from_either_file_in_either_form() {
        let object = format!(r#"{{"pad_token":{}}}"#, token("!"));
        let (map, config) = ("special_tokens_map.json", "tokenizer_config.json");
        let text = r#"{"pad_token":"!"}"#;
        for files in [
            &[(map, object.as_str()), (config, CONFIG)][..],
            &[(map, text), (config, CONFIG)],
            &[(config, text)],
            &[(map, r#"{"pad_token":null}"#), (config, &object)],
        ] {
            assert_eq!(open(files).unwrap().encode("")[1..4], [568, 0, 0]);
        }
        assert_eq!(open(&[(config, "{}")]).unwrap().padding, 568);
    }

    #[test]
    fn bad_files_are_named() {
        let why = |files: &[(&str, &str)]| open(files).unwrap_err().to_string();
        for (name, text, part) in [
            ("vocab.json", "[1]", "vocab.json: wanted an object"),
            ("vocab.json", r#"{"a":-1}"#, "`a` has the negative id -1"),
            ("vocab.json", "{}", "lacks `<|startoftext|>`, the bos_token"),
            (
                "merges.txt",
                "t h\nt  h\n",
                "merges.txt: line 2: wanted two pieces",
            ),
            ("merges.txt", "t q\n", "line 1: `tq` is not in vocab.json"),
            ("merges.txt", "#version: 0.2\n", "holds no merges"),
            (
                "special_tokens_map.json",
                "x",
                "special_tokens_map.json: is no JSON",
            ),
            (
                "tokenizer_config.json",
                r#"{"pad_token":3}"#,
                "pad_token: wanted a string",
            ),
            (
                "tokenizer_config.json",
                r#"{"pad_token":""}"#,
                "pad_token is empty",
            ),
            (
                "tokenizer_config.json",
                r#"{"pad_token":"nope"}"#,
                "lacks `nope`, the pad_token",
            ),
            (
                "tokenizer_config.json",
                r#"{"pad_token":{"content":"!","lstrip":true}}"#,
                "lstrip",
            ),
        ] {
            let text = why(&[(name, text)]);
            assert!(text.contains(part), "{part}: {text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let none = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(none.contains("vocab.json: cannot be read"), "{none}");
        write(dir.path(), &[]);
        std::fs::remove_file(dir.path().join("merges.txt")).unwrap();
        let none = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(none.contains("merges.txt: cannot be read"), "{none}");
        std::fs::write(dir.path().join("merges.txt"), [0xff]).unwrap();
        let bad = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(bad.contains("is no UTF-8"), "{bad}");
    }
}
