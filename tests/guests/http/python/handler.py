"""An http function in Python: answers by path, and passes bodies on as they come."""

from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import outgoing_handler
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Get,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Http,
)

PART_BYTES = 4096


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        match url.path:
            case "/echo":
                body = begin(response_out, 200, [])
                with body.write() as output:
                    for part in parts(request.consume()):
                        write(output, part)
                OutgoingBody.finish(body, None)
            case "/about":
                print(f"asked for {url.path}", flush=True)
                whole(response_out, 201, [("x-made-by", b"Python")], url.query.encode())
            case "/fetch":
                status, text = fetch(parse_qs(url.query)["url"][0])
                whole(response_out, status, [], text)
            case _:
                whole(response_out, 404, [], b"no such page\n")


def begin(response_out, status, headers):
    response = OutgoingResponse(Fields.from_list(headers))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    return body


def whole(response_out, status, headers, data):
    body = begin(response_out, status, headers)
    with body.write() as output:
        write(output, data)
    OutgoingBody.finish(body, None)


def write(output, data):
    for at in range(0, len(data), PART_BYTES):
        output.blocking_write_and_flush(data[at : at + PART_BYTES])


def parts(body):
    with body.stream() as stream:
        while True:
            try:
                yield stream.blocking_read(PART_BYTES)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return
                raise


def fetch(url):
    url = urlsplit(url)
    request = OutgoingRequest(Fields.from_list([]))
    request.set_method(Method_Get())
    request.set_scheme(Scheme_Http())
    request.set_authority(url.netloc)
    request.set_path_with_query(url.path or "/")
    try:
        future = outgoing_handler.handle(request, None)
        future.subscribe().block()
        answer = future.get().value
        answer = answer.value if isinstance(answer, Ok) else raise_(answer)
    except Err as error:
        return 502, f"failed: {error.value}".encode()
    return 200, f"{answer.status()}: ".encode() + b"".join(parts(answer.consume()))


def raise_(error):
    raise error
