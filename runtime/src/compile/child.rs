//! The other side: a process that compiles one module and ends. It bounds itself before it reads the first byte of the
//! module, and ends when its parent does.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

use nigh_proto::Kind;
use rustix::process::{Resource, Rlimit, nice, setrlimit};

use super::{STACK_BYTES, machine_code};
use crate::engine::{self, Shape};
use crate::probe;

/// The first bytes of an order; the last is the form's version.
const MAGIC: &[u8; 8] = b"nighcmp\x01";
const ORDER_BYTES: usize = MAGIC.len() + 6 * 8;
/// The first byte of an answer that holds code.
pub(super) const ANSWER_CODE: u8 = 0;
const ANSWER_REFUSAL: u8 = 1;
/// How far compiling steps back behind everything else, in steps of `nice`.
const NICENESS: i32 = 5;

/// What is to be done, within which bounds. The module's bytes follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) cpu_seconds: u64,
    pub(super) memory_bytes: u64,
    pub(super) module_bytes: u64,
}

impl Order {
    pub(super) fn to_bytes(self) -> [u8; ORDER_BYTES] {
        let kind = match self.kind {
            Kind::Native => 0,
            Kind::Http => 1,
            Kind::Command => 2,
        };
        let Shape { reservation_bytes, guard_bytes } = self.shape;
        let numbers = [kind, reservation_bytes, guard_bytes, self.cpu_seconds, self.memory_bytes, self.module_bytes];
        let mut bytes = [0; ORDER_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        for (room, number) in bytes[MAGIC.len()..].chunks_mut(8).zip(numbers) {
            room.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ORDER_BYTES]) -> Option<Self> {
        let numbers = bytes.strip_prefix(MAGIC)?.as_chunks::<8>().0;
        let [kind, reservation_bytes, guard_bytes, cpu_seconds, memory_bytes, module_bytes] =
            std::array::from_fn(|at| u64::from_le_bytes(numbers[at]));
        let kind = match kind {
            0 => Kind::Native,
            1 => Kind::Http,
            2 => Kind::Command,
            _ => return None,
        };
        let shape = Shape { reservation_bytes, guard_bytes };
        Some(Self { kind, shape, cpu_seconds, memory_bytes, module_bytes })
    }
}

/// Compiles the module that comes on standard input, in a process that has nothing else to do: the program that
/// [`Config::compiler`](crate::Config::compiler) names calls this as its first act and ends with what it returns.
pub fn compile_for_parent() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent reads this, and there is no log here.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> io::Result<()> {
    let mut bytes = [0; ORDER_BYTES];
    io::stdin().read_exact(&mut bytes)?;
    let malformed = || io::Error::other("this is no order to compile; this command is for computers only");
    let order = Order::from_bytes(&bytes).ok_or_else(malformed)?;
    bound(&order)?;
    let mut module = Vec::new();
    io::stdin().take(order.module_bytes).read_to_end(&mut module)?;
    if module.len() as u64 != order.module_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    thread::Builder::new().spawn(end_with_parent)?;
    let compile = move || {
        let engine = engine::for_compiling(order.shape, order.kind).map_err(|error| format!("{error:#}"))?;
        machine_code(&engine, order.kind, &module)
    };
    let compiling = thread::Builder::new().stack_size(STACK_BYTES).spawn(compile)?;
    let (tag, bytes) = match compiling.join() {
        Ok(Ok(code)) => (ANSWER_CODE, code),
        Ok(Err(why)) => (ANSWER_REFUSAL, why.into_bytes()),
        Err(_) => (ANSWER_REFUSAL, b"the compiler gave up on this module".to_vec()),
    };
    let mut answer = io::stdout().lock();
    answer.write_all(&[tag])?;
    answer.write_all(&(bytes.len() as u64).to_le_bytes())?;
    answer.write_all(&bytes)?;
    answer.flush()
}

/// From here on, the kernel ends this process where it is over its bounds.
fn bound(order: &Order) -> io::Result<()> {
    let limit = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // What the program itself maps is not the module's fault.
    let address_space = probe::mapped_bytes().saturating_add(order.memory_bytes);
    setrlimit(Resource::As, lower(Resource::As, address_space))?;
    // The signal comes at the soft limit; the hard one is a second later.
    let cpu = Rlimit { current: Some(order.cpu_seconds), maximum: Some(order.cpu_seconds.saturating_add(1)) };
    setrlimit(Resource::Cpu, cpu)?;
    setrlimit(Resource::Core, limit(0))?;
    // No more than good manners: where it fails, compiling is as important as the rest.
    let _ = nice(NICENESS);
    Ok(())
}

/// A limit of so many bytes, or the lower one that is there already.
fn lower(resource: Resource, bytes: u64) -> Rlimit {
    let there = rustix::process::getrlimit(resource);
    let bytes = there.current.into_iter().chain(there.maximum).fold(bytes, u64::min);
    Rlimit { current: Some(bytes), maximum: Some(bytes) }
}

/// Nobody waits any more once standard input ends; the parent holds it open until it has its answer.
fn end_with_parent() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_over_as_they_were_given() {
        let order =
            Order { kind: Kind::Command, shape: Shape::TIGHT, cpu_seconds: 5, memory_bytes: 6, module_bytes: 7 };
        assert_eq!(Order::from_bytes(&order.to_bytes()), Some(order));
        let mut foreign = order.to_bytes();
        foreign[0] ^= 1;
        assert_eq!(Order::from_bytes(&foreign), None);
    }
}
