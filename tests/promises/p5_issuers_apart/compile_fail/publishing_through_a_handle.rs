use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Kanal};

fn publish(handle: &mut KeyHandle<Kanal>, key: ApiKey<Kanal>) {
    handle.publish_next(key.as_raw(), std::time::Duration::ZERO);
}

fn main() {}
