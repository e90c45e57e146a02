//! What devices are to be told: what they know, compared with what is decided now; whose turn it is, and how it went.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio_util::sync::CancellationToken;

use super::{Due, Standing, State, TURNS_PER_DEVICE_MAX, Turn};
use crate::context::{Context, ContextId, Dialect, Told};
use crate::notify::News;

impl State {
    /// Compares what devices know with what is decided now.
    pub(crate) fn due(&mut self) -> Due {
        let mut due = Due::default();
        self.has_waiting = false;
        let mut turns: HashMap<IpAddr, usize> = HashMap::new();
        for standing in self.contexts.values().filter(|standing| standing.turn.is_some()) {
            *turns.entry(standing.context.device).or_default() += 1;
        }
        // Before the controller was heard, everything would seem to be gone.
        let knows = self.known.is_in_step() || self.config.controller.is_none();
        let ids: Vec<ContextId> = if knows { self.contexts.keys().copied().collect() } else { Vec::new() };
        for id in ids {
            let Some(news) = self.news_of(id) else { continue };
            let Some(standing) = self.contexts.get_mut(&id) else { continue };
            standing.is_leaving = news == News::Deleted;
            if standing.context.wish.callback.is_none() {
                if standing.is_leaving {
                    due.gone.push(id);
                }
                continue;
            }
            let under_way = turns.entry(standing.context.device).or_default();
            match &standing.turn {
                Some((_, what)) if *what == news => continue,
                Some((turn, _)) => turn.over.cancel(),
                None if *under_way >= TURNS_PER_DEVICE_MAX => {
                    self.has_waiting = true;
                    continue;
                }
                None => *under_way += 1,
            }
            self.turns += 1;
            let turn = Turn { number: self.turns, over: CancellationToken::new() };
            standing.turn = Some((turn.clone(), news));
            due.tell.push((id, turn));
        }
        for id in &due.gone {
            self.remove(*id);
        }
        due
    }

    /// What a device does not know yet and was not told in vain.
    fn news_of(&self, id: ContextId) -> Option<News> {
        let standing = self.contexts.get(&id).filter(|standing| standing.is_kept)?;
        let context = &standing.context;
        let name = context.wish.application.app_name.as_str();
        let is_gone = standing.is_leaving || (context.is_deployed && !self.known.is_deployed(name));
        let news = if is_gone && context.dialect == Dialect::DevApp {
            News::Deleted
        } else {
            self.other_addresses(context).or_else(|| self.other_locations(standing))?
        };
        (standing.in_vain.as_ref() != Some(&news)).then_some(news)
    }

    fn other_addresses(&self, context: &Context) -> Option<News> {
        let decided = self.decided(context);
        // Where nobody serves it now, the device keeps what it knows.
        let now: Vec<Option<Told>> =
            decided.into_iter().zip(&context.told).map(|(now, before)| now.or_else(|| before.clone())).collect();
        (now != context.told).then_some(News::Addresses(now))
    }

    fn other_locations(&self, standing: &Standing) -> Option<News> {
        let wish = &standing.context.wish;
        if wish.location_updates != Some(true) {
            return None;
        }
        let available = self.locations_of(&wish.application.app_name);
        (!available.is_empty() && available != standing.locations).then_some(News::Locations(available))
    }

    /// What is to be told in this turn.
    pub(crate) fn news(&self, id: ContextId, turn: &Turn) -> Option<(Context, News)> {
        let standing = self.contexts.get(&id)?;
        let (_, news) = standing.turn.as_ref().filter(|(current, _)| current.number == turn.number)?;
        Some((standing.context.clone(), news.clone()))
    }

    /// A device has taken what it was told in its turn. Whether there is something to keep.
    pub(crate) fn took(&mut self, id: ContextId, turn: &Turn, news: News) -> bool {
        let Some(standing) = self.in_turn(id, turn) else { return false };
        standing.in_vain = None;
        match news {
            News::Addresses(now) => standing.context.told = now,
            News::Locations(locations) => standing.locations = locations,
            News::Deleted => self.remove(id),
        }
        true
    }

    /// A device does not take what it was told. Whether there is something to keep.
    pub(crate) fn gave_up(&mut self, id: ContextId, turn: &Turn, news: News) -> bool {
        let Some(standing) = self.in_turn(id, turn) else { return false };
        let is_gone = news == News::Deleted;
        standing.in_vain = Some(news);
        if is_gone {
            self.remove(id);
        }
        is_gone
    }

    /// A turn is over. Whether somebody has more to hear.
    pub(crate) fn end_turn(&mut self, id: ContextId, turn: &Turn) -> bool {
        if let Some(standing) = self.in_turn(id, turn) {
            standing.turn = None;
        }
        self.has_waiting || self.news_of(id).is_some()
    }

    fn in_turn(&mut self, id: ContextId, turn: &Turn) -> Option<&mut Standing> {
        let standing = self.contexts.get_mut(&id)?;
        let is_current = standing.turn.as_ref().is_some_and(|(current, _)| current.number == turn.number);
        is_current.then_some(standing)
    }
}
