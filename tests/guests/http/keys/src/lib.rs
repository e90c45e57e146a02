//! An http function that keeps what its query says by `wasi:keyvalue`, and answers with what it found. Apart from the other
//! one, which runs on hosts that have nothing to keep things in.

mod keyvalue;

use std::io::Write;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Handler);

struct Handler;

impl Guest for Handler {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let asked = request.path_with_query().unwrap_or_default();
        let (path, query) = asked.split_once('?').unwrap_or((&asked, ""));
        match (path, keyvalue::obey(query)) {
            ("/keep", Ok(said)) => answer(out, 200, &said),
            ("/keep", Err(error)) => answer(out, 500, &format!("{error:?}")),
            ("/keep-and-trap", _) => core::arch::wasm32::unreachable(),
            (_, _) => answer(out, 404, "nothing of that name"),
        }
    }
}

fn answer(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let mut output = body.write().unwrap();
    // A caller that has gone away is no reason to fail.
    let _ = output.write_all(text.as_bytes()).and_then(|()| Write::flush(&mut output));
    drop(output);
    let _ = OutgoingBody::finish(body, None);
}
