//! States as http functions reach them: `wasi:keyvalue` 0.2.0-draft, each state that the function was deployed with being a
//! bucket. A bucket's keys and values are the content of its state ([`v1::KeyValues`]): read when it is first opened, and
//! written with the call's answer, as all that a call does with states.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use nigh_proto::v1;
use nigh_state::Refusal;
use prost::Message as _;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::guest::Guest;
use bindings::wasi::keyvalue::{atomics, batch, store};
use store::{Error, KeyResponse};

/// Keys in one part of a list.
const LISTED_MAX: usize = 1000;
/// Bytes that a key and its value take beside themselves.
const OVERHEAD: usize = 16;

mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:keyvalue@0.2.0-draft;

            interface store {
                variant error { no-such-store, access-denied, other(string) }
                record key-response { keys: list<string>, cursor: option<u64> }
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                    delete: func(key: string) -> result<_, error>;
                    exists: func(key: string) -> result<bool, error>;
                    list-keys: func(cursor: option<u64>) -> result<key-response, error>;
                }
            }

            interface atomics {
                use store.{bucket, error};
                increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
            }

            interface batch {
                use store.{bucket, error};
                get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
                set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
                delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
            }

            world states {
                import store;
                import atomics;
                import batch;
            }
        ",
        world: "states",
        imports: { default: trappable },
        with: { "wasi:keyvalue/store.bucket": crate::http::keyvalue::Bucket },
    });
}

/// Defines the interfaces.
pub(super) fn define(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    bindings::States::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)
}

/// An open bucket, by its state's name.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated code makes it public within this room")]
pub struct Bucket(String);

/// What a call has opened, as it has left it so far.
#[derive(Debug, Default)]
pub(super) struct Buckets(HashMap<String, Pairs>);

#[derive(Debug, Default)]
struct Pairs {
    values: BTreeMap<String, Bytes>,
    bytes: usize,
    is_changed: bool,
}

impl Pairs {
    fn of(content: &Bytes) -> Result<Self, prost::DecodeError> {
        let v1::KeyValues { values } = v1::KeyValues::decode(content.clone())?;
        let values: BTreeMap<_, _> = values.into_iter().collect();
        let bytes = values.iter().map(|(key, value)| bytes_of(key, value)).sum();
        Ok(Self { values, bytes, is_changed: false })
    }

    fn encode(&self) -> Bytes {
        let values = self.values.iter().map(|(key, value)| (key.clone(), value.clone()));
        v1::KeyValues { values: values.collect() }.encode_to_vec().into()
    }

    fn put(&mut self, key: String, value: Bytes) {
        self.bytes += bytes_of(&key, &value);
        let before = self.values.insert(key.clone(), value);
        self.bytes -= before.map_or(0, |before| bytes_of(&key, &before));
        self.is_changed = true;
    }

    fn remove(&mut self, key: &str) {
        if let Some(before) = self.values.remove(key) {
            self.bytes -= bytes_of(key, &before);
            self.is_changed = true;
        }
    }
}

fn bytes_of(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + OVERHEAD
}

impl Guest {
    /// Gives the states of the call the content that its buckets have now. Nothing of it is written until the call has its
    /// outcome.
    pub(super) fn settle_buckets(&mut self) -> Result<(), Refusal> {
        let Buckets(buckets) = std::mem::take(&mut self.buckets);
        for (name, pairs) in buckets.into_iter().filter(|(_, pairs)| pairs.is_changed) {
            if let Some(states) = self.base.states() {
                states.put(&name, pairs.encode())?;
            }
        }
        Ok(())
    }

    fn pairs(&mut self, bucket: &Resource<Bucket>) -> wasmtime::Result<(&str, &mut Pairs)> {
        let Bucket(name) = self.table.get(bucket)?;
        // One that was opened by a call before, in an instance that is reused.
        let gone = || wasmtime::Error::msg(format!("the bucket {name} was opened by another call"));
        Ok((name.as_str(), self.buckets.0.get_mut(name).ok_or_else(gone)?))
    }

    /// Puts pairs where together they do not exceed what the function may write.
    fn put_pairs(
        &mut self,
        bucket: &Resource<Bucket>,
        new: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (name, pairs) = self.pairs(bucket)?;
        let name = name.to_owned();
        let growth: usize = new.iter().map(|(key, value)| key.len() + value.len() + OVERHEAD).sum();
        let replaced: usize = new.iter().filter_map(|(key, _)| Some(bytes_of(key, pairs.values.get(key)?))).sum();
        let bytes = (pairs.bytes + growth).saturating_sub(replaced);
        let checked = match self.base.states() {
            Some(states) => states.check(&name, bytes),
            None => Err(Refusal::Undeclared(name)),
        };
        if let Err(refusal) = checked {
            return Ok(Err(Error::Other(refusal.to_string())));
        }
        let (_, pairs) = self.pairs(bucket)?;
        for (key, value) in new {
            pairs.put(key, value.into());
        }
        Ok(Ok(()))
    }
}

impl store::Host for Guest {
    fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
        self.note_asked();
        if !self.buckets.0.contains_key(&identifier) {
            let found = self.base.states().map(|states| states.get(&identifier).map(Option::<&Bytes>::cloned));
            let pairs = match found {
                Some(Ok(content)) => Pairs::of(&content.unwrap_or_default()),
                Some(Err(_)) | None => {
                    let name: String = identifier.chars().take(64).collect();
                    self.base.streams().note(&format!(
                        "[the bucket {name} was refused: the function was not deployed with a state of that name; deploy it with --state {name}]"
                    ));
                    return Ok(Err(Error::AccessDenied));
                }
            };
            let Ok(pairs) = pairs else {
                let message =
                    format!("the state {identifier} does not hold keys and values: something else has written it");
                return Ok(Err(Error::Other(message)));
            };
            self.buckets.0.insert(identifier.clone(), pairs);
        }
        Ok(Ok(self.table.push(Bucket(identifier))?))
    }
}

impl store::HostBucket for Guest {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        Ok(Ok(self.pairs(&bucket)?.1.values.get(&key).map(|value| value.to_vec())))
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), Error>> {
        self.put_pairs(&bucket, vec![(key, value)])
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<(), Error>> {
        self.pairs(&bucket)?.1.remove(&key);
        Ok(Ok(()))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<bool, Error>> {
        Ok(Ok(self.pairs(&bucket)?.1.values.contains_key(&key)))
    }

    fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let (_, pairs) = self.pairs(&bucket)?;
        let begin = cursor.map_or(0, |cursor| usize::try_from(cursor).unwrap_or(usize::MAX));
        let keys: Vec<String> = pairs.values.keys().skip(begin).take(LISTED_MAX).cloned().collect();
        let end = begin.saturating_add(keys.len());
        let cursor = (end < pairs.values.len()).then_some(end as u64);
        Ok(Ok(KeyResponse { keys, cursor }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Guest {
    /// A number is its decimal digits. No other call uses the state meanwhile, so this is atomic as it stands.
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> wasmtime::Result<Result<u64, Error>> {
        let found = self.pairs(&bucket)?.1.values.get(&key).cloned().unwrap_or_else(|| Bytes::from_static(b"0"));
        let number = std::str::from_utf8(&found).ok().and_then(|digits| digits.parse::<u64>().ok());
        let Some(number) = number.and_then(|number| number.checked_add(delta)) else {
            let message = format!("the value of {key:?} is no number below 2^64 that could grow by {delta}");
            return Ok(Err(Error::Other(message)));
        };
        Ok(self.put_pairs(&bucket, vec![(key, number.to_string().into_bytes())])?.map(|()| number))
    }
}

impl batch::Host for Guest {
    fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        let (_, pairs) = self.pairs(&bucket)?;
        let found = |key: String| pairs.values.get(&key).map(|value| (key.clone(), value.to_vec()));
        Ok(Ok(keys.into_iter().map(found).collect()))
    }

    fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.put_pairs(&bucket, key_values)
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> wasmtime::Result<Result<(), Error>> {
        let (_, pairs) = self.pairs(&bucket)?;
        keys.iter().for_each(|key| pairs.remove(key));
        Ok(Ok(()))
    }
}
