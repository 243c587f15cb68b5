//! Document stores around other ones.

/// In an implementation of `DocumentStore`: passes the named methods on to a field, which is a store too.
macro_rules! pass_on {
    ($field:tt: $($method:ident),+) => { $($crate::support::stores::pass_on! { @$method $field })+ };
    (@provenance $field:tt) => {
        fn provenance(&self) -> keysheath::source::Provenance {
            self.$field.provenance()
        }
    };
    (@limit $field:tt) => {
        fn limit(&self) -> usize {
            self.$field.limit()
        }
    };
    (@read $field:tt) => {
        fn read(&self) -> Result<Option<keysheath::store::Document>, keysheath::store::DocumentError> {
            self.$field.read()
        }
    };
    (@write $field:tt) => {
        fn write(
            &self,
            content: &keysheath::store::DocumentContent,
            unchanged: Option<&keysheath::store::Version>,
        ) -> Result<keysheath::store::Version, keysheath::store::DocumentError> {
            self.$field.write(content, unchanged)
        }
    };
}

pub(crate) use pass_on;
