use std::marker::PhantomData;

use keysheath::key::{ApiKey, Fingerprint, Kanal};

struct Type<T: ?Sized>(PhantomData<T>);

impl<T: std::hash::Hash> Type<T> {
    fn is_hashed(&self) {}
}

fn main() {
    Type::<Fingerprint>(PhantomData).is_hashed();
}
