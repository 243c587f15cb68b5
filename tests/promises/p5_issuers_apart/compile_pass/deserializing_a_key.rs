use std::marker::PhantomData;

use keysheath::key::{ApiKey, Kanal};
use keysheath::source::KeyRef;

struct Type<T: ?Sized>(PhantomData<T>);

impl<'de, T: serde::Deserialize<'de>> Type<T> {
    fn is_deserialized(&self) {}
}

fn main() {
    Type::<KeyRef>(PhantomData).is_deserialized();
}
