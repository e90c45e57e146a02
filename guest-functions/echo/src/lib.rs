//! Answers with what it was sent: payload and headers. For trying things out and for measuring everything but the function.

use nigh_sdk::{Error, Request, Response};

nigh_sdk::function!(echo);

fn echo(request: Request) -> Result<Response, Error> {
    let headers: Vec<(String, String)> =
        request.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let response = Response::new(request.into_payload());
    Ok(headers.into_iter().fold(response, |response, (name, value)| response.with_header(name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_and_headers_come_back() {
        let response = echo(Request::new("hello").with_header("colour", "green")).unwrap();
        assert_eq!(response.payload(), b"hello");
        assert_eq!(response.header("colour"), Some("green"));
    }
}
