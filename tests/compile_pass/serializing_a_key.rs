use std::marker::PhantomData;

use keysheath::issuer::Kanal;
use keysheath::key::ApiKey;
use keysheath::keyref::KeyRef;

struct Type<T: ?Sized>(PhantomData<T>);

impl<T: serde::Serialize> Type<T> {
    fn is_serialized(&self) {}
}

fn main() {
    Type::<KeyRef>(PhantomData).is_serialized();
}
