use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Kanal};

fn publish(handle: &mut KeyHandle<Kanal>, key: ApiKey<Kanal>) {
    *handle = KeyHandle::fixed(key); // a handle of its own: clones of the other one keep their key
}

fn main() {}
