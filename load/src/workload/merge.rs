//! The calls of many clients as one sequence.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{ClientCalls, Due};

/// Calls of all clients in the order in which they are due, those of one instant by client.
#[derive(Debug)]
pub struct Merged {
    clients: Vec<ClientCalls>,
    /// The next call of each client, by place.
    next: Vec<Option<Due>>,
    /// When it is due, and whose it is; the earliest on top.
    order: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Merged {
    pub(super) fn new(clients: impl Iterator<Item = ClientCalls>) -> Self {
        let mut clients: Vec<_> = clients.collect();
        let next: Vec<_> = clients.iter_mut().map(Iterator::next).collect();
        let order = next.iter().enumerate().filter_map(|(place, due)| Some(Reverse((due.as_ref()?.at, place))));
        Self { order: order.collect(), clients, next }
    }
}

impl Iterator for Merged {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let mut top = self.order.peek_mut()?;
        let Reverse((_, place)) = *top;
        let following = self.clients[place].next();
        match &following {
            // Changed in place, the order is mended with one pass.
            Some(due) => *top = Reverse((due.at, place)),
            None => {
                std::collections::binary_heap::PeekMut::pop(top);
            }
        }
        std::mem::replace(&mut self.next[place], following)
    }
}
