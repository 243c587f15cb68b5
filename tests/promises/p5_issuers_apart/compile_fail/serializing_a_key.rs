use std::marker::PhantomData;

use keysheath::key::{ApiKey, Kanal};
use keysheath::source::KeyRef;

struct Type<T: ?Sized>(PhantomData<T>);

impl<T: serde::Serialize> Type<T> {
    fn is_serialized(&self) {}
}

fn main() {
    Type::<ApiKey<Kanal>>(PhantomData).is_serialized();
}
