//! What the function keeps by `wasi:keyvalue`.

wit_bindgen::generate!({
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
});

use wasi::keyvalue::store::{self, Error};
use wasi::keyvalue::{atomics, batch};

/// Does what a query says: `BUCKET:set:KEY:VALUE`, one after the other, joined by `&`; what is read is said.
pub fn obey(query: &str) -> Result<String, Error> {
    let mut said = Vec::new();
    for command in query.split('&') {
        let words: Vec<&str> = command.split(':').collect();
        let bucket = store::open(words[0])?;
        match words[1..] {
            ["set", key, value] => bucket.set(key, value.as_bytes())?,
            ["fill", key, bytes] => bucket.set(key, &vec![b'x'; bytes.parse().unwrap_or(0)])?,
            ["get", key] => said.push(bucket.get(key)?.map_or("nothing".to_owned(), text)),
            ["delete", key] => bucket.delete(key)?,
            ["exists", key] => said.push(bucket.exists(key)?.to_string()),
            ["keys"] => said.push(bucket.list_keys(None)?.keys.join(",")),
            ["increment", key, by] => said.push(atomics::increment(&bucket, key, by.parse().unwrap_or(0))?.to_string()),
            ["set-many", one, two] => {
                batch::set_many(&bucket, &[(one.to_owned(), b"1".to_vec()), (two.to_owned(), b"2".to_vec())])?;
            }
            ["get-many", one, two] => {
                let found = batch::get_many(&bucket, &[one.to_owned(), two.to_owned()])?;
                said.extend(found.into_iter().map(|pair| pair.map_or("nothing".to_owned(), |(_, value)| text(value))));
            }
            ["delete-many", one, two] => batch::delete_many(&bucket, &[one.to_owned(), two.to_owned()])?,
            _ => return Err(Error::Other(format!("cannot {command}"))),
        }
    }
    Ok(said.join(" "))
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8_lossy(&value).into_owned()
}
