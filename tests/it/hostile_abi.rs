//! The native ABI with each of its numbers wrong in turn: whatever a guest says, its caller is told what is wrong with it.

use nigh_proto::{Limits, Outcome};
use nigh_tests::edge::Edge;
use nigh_tests::guests;

/// An answer's numbers, as a well-behaved guest would leave them behind.
const GOOD: Numbers = Numbers {
    descriptor: 64,
    status: 0,
    head: 200,
    head_len: 16,
    body: 1024,
    body_len: 3,
    headers: 1,
    name_len: 2,
    value_len: 2,
};

#[derive(Clone, Copy)]
struct Numbers {
    descriptor: u32,
    status: u32,
    head: u32,
    head_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    name_len: u32,
    value_len: u32,
}

impl Numbers {
    fn payload(self) -> Vec<u8> {
        let text = u32::from_le_bytes(*b"kxvy");
        let answer = [self.descriptor, self.status, self.head, self.head_len, self.body, self.body_len];
        let head = [self.headers, self.name_len, self.value_len, text];
        answer.into_iter().chain(head).flat_map(u32::to_le_bytes).collect()
    }
}

/// Does as its payload says: its first word is what the handler returns, then come a descriptor and a head.
const OBEYS: &str = "(memory.copy (i32.const 64) (i32.const 1028) (i32.const 20))
    (memory.copy (i32.const 200) (i32.const 1048) (i32.const 16))
    (i32.load (i32.const 1024))";

/// Bytes of its memory.
const MEMORY: u32 = 2 << 16;

/// Which number of an answer is made wrong.
type Change = fn(&mut Numbers) -> &mut u32;

#[tokio::test(flavor = "multi_thread")]
async fn each_number_of_an_answer_wrong_in_turn_is_told() {
    let edge = Edge::start(1).await;
    let limits = Limits { payload_bytes: 1 << 16, ..Limits::default() };
    edge.try_deploy("obeys", guests::native("", OBEYS), limits).await.unwrap();
    let reply = edge.call("obeys", GOOD.payload()).await.unwrap();
    let Outcome::Answer { payload, headers } = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert_eq!((&payload[..], headers.get("kx")), (&GOOD.payload()[..3], Some("vy")));

    let wrong = [0, 1, 3, 5, MEMORY - 19, MEMORY - 1, MEMORY, MEMORY + 1, 1 << 31, u32::MAX - 19, u32::MAX];
    let changes: [(&str, Change); 9] = [
        ("descriptor", |numbers| &mut numbers.descriptor),
        ("status", |numbers| &mut numbers.status),
        ("head", |numbers| &mut numbers.head),
        ("head_len", |numbers| &mut numbers.head_len),
        ("body", |numbers| &mut numbers.body),
        ("body_len", |numbers| &mut numbers.body_len),
        ("headers", |numbers| &mut numbers.headers),
        ("name_len", |numbers| &mut numbers.name_len),
        ("value_len", |numbers| &mut numbers.value_len),
    ];
    for (what, change) in changes {
        for number in wrong {
            let mut numbers = GOOD;
            *change(&mut numbers) = number;
            // Addresses within memory may well hold an answer, an error of the function, or nonsense.
            let is_outside = match what {
                "descriptor" => u64::from(number) + 20 > u64::from(MEMORY),
                "head" => u64::from(number) + 16 > u64::from(MEMORY),
                "body" => u64::from(number) + 3 > u64::from(MEMORY),
                "status" => number > 1,
                "body_len" => number > 1 << 16,
                "head_len" | "headers" | "name_len" | "value_len" => number > 16,
                _ => unreachable!(),
            };
            match edge.call("obeys", numbers.payload()).await.unwrap().outcome {
                Outcome::Answer { .. } => assert!(!is_outside, "{what} = {number} is answered"),
                Outcome::Error { kind, message } => {
                    let told = ["malformed-answer", "answer-too-large"].contains(&kind.as_str());
                    assert!(
                        told || (what == "status" && number == 1) || what == "descriptor",
                        "{what} = {number}: {kind}: {message}"
                    );
                }
                Outcome::Estimate(_) => panic!("nobody asked for an estimate"),
            }
        }
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_does_not_lie_in_memory_is_told() {
    let edge = Edge::start(1).await;
    for (alloc, kind) in [
        ("i32.const -1", "malformed-answer"),
        ("i32.const 131072", "malformed-answer"),
        ("(i32.sub (i32.const 131073) (local.get 0))", "malformed-answer"),
        ("i32.const 0x7fffffff", "malformed-answer"),
        ("unreachable", "trap"),
        ("(loop $l (br $l)) unreachable", "time-limit"),
    ] {
        let text = format!(
            r#"(module (memory (export "memory") 2)
                (func (export "nigh_alloc_v1") (param i32) (result i32) {alloc})
                (func (export "nigh_handle_v1") (param i32 i32) (result i32) unreachable))"#
        );
        let limits = Limits { timeout: std::time::Duration::from_millis(100), ..Limits::default() };
        edge.try_deploy("allocates", guests::from_text(&text), limits).await.unwrap();
        let reply = edge.call("allocates", "payload").await.unwrap();
        assert!(matches!(&reply.outcome, Outcome::Error { kind: found, .. } if found == kind), "{alloc}: {reply:?}");
    }
    edge.stop().await;
}
