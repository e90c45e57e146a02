//! What is to be sent on a stream. Answers of many parts take turns with each other and with those of one frame, so that
//! nobody waits for more than a part of somebody else's.

use std::collections::VecDeque;

use crate::reply::{Outcome, Reply};
use crate::status::PlatformError;
use crate::stream::PART_BYTES;
use crate::v1;
use crate::v1::invoke_frame::Frame;

/// Whole answers that go before a part of a large one, at most.
const SMALL_IN_A_ROW_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Answers {
    /// Those of one frame.
    small: VecDeque<v1::InvokeFrame>,
    /// What is left of the others.
    large: VecDeque<(u64, Reply)>,
    small_in_a_row: usize,
}

impl Answers {
    pub(super) fn reply(&mut self, id: u64, reply: Reply) {
        match &reply.outcome {
            Outcome::Answer { payload, .. } if payload.len() > PART_BYTES => self.large.push_back((id, reply)),
            _ => self.small.push_back(whole(id, reply)),
        }
    }

    pub(super) fn fail(&mut self, id: u64, error: &PlatformError) {
        self.small.push_back(v1::InvokeFrame { id, frame: Some(Frame::Failure(error.to_failure())) });
    }

    /// The stream should end.
    pub(super) fn leave(&mut self) {
        self.small.push_back(v1::InvokeFrame { id: 0, frame: Some(Frame::Leave(v1::LeaveStream {})) });
    }

    /// Nobody wants what is left of this one.
    pub(super) fn forget(&mut self, id: u64) {
        self.large.retain(|(large, _)| *large != id);
    }

    pub(super) fn next(&mut self) -> Option<v1::InvokeFrame> {
        if (self.small_in_a_row < SMALL_IN_A_ROW_MAX || self.large.is_empty())
            && let Some(small) = self.small.pop_front()
        {
            self.small_in_a_row += 1;
            return Some(small);
        }
        self.small_in_a_row = 0;
        let (id, mut reply) = self.large.pop_front()?;
        if let Outcome::Answer { payload, .. } = &mut reply.outcome
            && payload.len() > PART_BYTES
        {
            let part = v1::PayloadPart { data: payload.split_to(PART_BYTES), more: true };
            self.large.push_back((id, reply));
            return Some(v1::InvokeFrame { id, frame: Some(Frame::Part(part)) });
        }
        Some(whole(id, reply))
    }
}

fn whole(id: u64, reply: Reply) -> v1::InvokeFrame {
    v1::InvokeFrame { id, frame: Some(Frame::Reply(reply.into_wire())) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::call::CallId;

    fn answer(bytes: usize) -> Reply {
        let outcome = Outcome::Answer { payload: Bytes::from(vec![7; bytes]), headers: crate::Headers::default() };
        Reply::new(outcome, "computer-1".parse().unwrap(), CallId::random())
    }

    fn bytes_of(frame: &v1::InvokeFrame) -> usize {
        match &frame.frame {
            Some(Frame::Part(part)) => part.data.len(),
            Some(Frame::Reply(v1::InvokeResponse {
                outcome: Some(v1::invoke_response::Outcome::Answer(answer)),
                ..
            })) => answer.payload.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_large_answer_holds_up_others_by_a_part_and_is_not_held_up_by_them_for_ever() {
        let mut answers = Answers::default();
        answers.reply(0, answer(10 * PART_BYTES));
        for id in 1..=100 {
            answers.reply(id, answer(1));
        }
        let order: Vec<_> = std::iter::from_fn(|| answers.next()).map(|frame| frame.id).collect();
        let at: Vec<_> = order.iter().enumerate().filter(|(_, id)| **id == 0).map(|(at, _)| at).collect();
        assert_eq!(at[..3], [16, 33, 50], "{order:?}");
        assert_eq!(order.len(), 110);
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_sent() {
        let mut answers = Answers::default();
        answers.reply(1, answer(3 * PART_BYTES));
        answers.reply(2, answer(2 * PART_BYTES));
        assert_eq!(answers.next().map(|frame| frame.id), Some(1));
        answers.forget(1);
        assert!(std::iter::from_fn(|| answers.next()).all(|frame| frame.id == 2));
    }

    proptest! {
        #[test]
        fn every_answer_leaves_whole_and_in_order(sizes in prop::collection::vec(0..4 * PART_BYTES, 0..20)) {
            let mut answers = Answers::default();
            for (id, bytes) in sizes.iter().enumerate() {
                answers.reply(id as u64, answer(*bytes));
            }
            let (mut came, mut ended) = (HashMap::<u64, usize>::new(), 0);
            while let Some(frame) = answers.next() {
                let bytes = bytes_of(&frame);
                prop_assert!(bytes <= PART_BYTES);
                *came.entry(frame.id).or_default() += bytes;
                if matches!(frame.frame, Some(Frame::Reply(_))) {
                    ended += 1;
                    prop_assert_eq!(came[&frame.id], sizes[usize::try_from(frame.id).unwrap()]);
                }
            }
            prop_assert_eq!(ended, sizes.len());
        }
    }
}
