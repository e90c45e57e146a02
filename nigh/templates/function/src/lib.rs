//! Counts the words of a text and answers with the most frequent ones.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use nigh_sdk::{Error, Request, Response};

nigh_sdk::function!(handle);

/// How many words the answer lists unless the header `top` says otherwise.
const TOP_DEFAULT: usize = 10;

/// Payload: text. Header `top`: how many words to list. Answer: lines of count and word, the most frequent first.
fn handle(request: Request) -> Result<Response, Error> {
    let top = request.header_or("top", TOP_DEFAULT)?;
    let text = request.text()?;
    let mut counts = BTreeMap::<String, usize>::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    if counts.is_empty() {
        return Err(Error::bad_input("there is no word in the payload: send some text"));
    }
    nigh_sdk::info!("{} different words in {} bytes", counts.len(), text.len());
    let mut counts: Vec<_> = counts.into_iter().collect();
    // The sort is stable: words that are equally frequent stay in alphabetical order.
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let lines: String = counts.iter().take(top).map(|(word, count)| format!("{count} {word}\n")).collect();
    Ok(Response::text(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_word_comes_first() {
        let response = handle(Request::new("To be, or not to be: that is the question.").with_header("top", "3")).unwrap();
        assert_eq!(response.payload(), b"2 be\n2 to\n1 is\n");
    }

    #[test]
    fn a_payload_without_words_is_the_callers_fault() {
        assert_eq!(handle(Request::new(" ... ")).unwrap_err().kind(), "bad-input");
        assert_eq!(handle(Request::new(vec![0xff])).unwrap_err().kind(), "bad-input");
        assert_eq!(handle(Request::new("text").with_header("top", "many")).unwrap_err().kind(), "bad-input");
    }
}
