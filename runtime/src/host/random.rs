//! WASI's `random_get`, which WASI's own makes in one go, up to 64 MiB while no tick reaches the guest.

use std::future::poll_fn;
use std::task::Poll;

use nigh_proto::module::abi;
use rand::Rng as _;
use wasmtime::{Caller, Extern};

use super::{Guest, range};

/// Bytes made before others may compute.
const PART_BYTES: usize = 64 << 10;

// Values of `errno` in the witx of `wasi_snapshot_preview1`.
const SUCCESS: i32 = 0;
const FAULT: i32 = 21;

/// `random_get(address, length) -> errno`, in parts between which others compute.
pub(super) async fn random_get(mut caller: Caller<'_, Guest>, (address, len): (u32, u32)) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export(abi::MEMORY) else { return Ok(FAULT) };
    if range(memory.data(&caller), address, len).is_none() {
        return Ok(FAULT);
    }
    let (mut at, mut left) = (usize::try_from(address)?, usize::try_from(len)?);
    loop {
        let part = left.min(PART_BYTES);
        rand::rng().fill_bytes(&mut memory.data_mut(&mut caller)[at..at + part]);
        (at, left) = (at + part, left - part);
        if left == 0 {
            return Ok(SUCCESS);
        }
        between_parts(&mut caller).await?;
    }
}

/// What a tick does to a guest that computes: it may have to end, or let others compute first.
async fn between_parts(caller: &mut Caller<'_, Guest>) -> wasmtime::Result<()> {
    let guest = caller.data_mut();
    guest.look_in()?;
    let mut yields = guest.service.as_mut().is_some_and(|service| service.turn.should_yield());
    poll_fn(|context| {
        if std::mem::take(&mut yields) {
            context.waker().wake_by_ref();
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    Ok(())
}
