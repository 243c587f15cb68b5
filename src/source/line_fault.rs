//! What can be wrong with a line of a `.env`.

/// Why a line of a `.env` gives no value: programs that read such files disagree about it, or none takes a key from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LineFault {
    /// The name is there, and no `=` follows it.
    #[error("has the name and no `=` after it: write NAME=value, or remove the line")]
    NoEquals,
    /// A key stands there without a name.
    #[error("looks like a key without a name: write its NAME= before it, or remove the line")]
    NoName,
    /// The name stands in quotation marks.
    #[error("has the name in quotation marks, which not every program removes: write the name without them")]
    QuotedName,
    /// `export` is followed by something else than one space.
    #[error("has something else than one plain space after `export`: write `export NAME=value`")]
    Export,
    /// A character ends the line for some programs and not for others.
    #[error(
        "holds a character that ends a line for some programs only (CR alone, VT, FF, U+0085, U+2028 or U+2029): \
         save the file with LF at the end of each line"
    )]
    LineBreak,
    /// The line may be a part of another variable's value.
    #[error(
        "may be a part of the quoted value that starts on line {opened}: close that quotation mark, or move \
         this line above it"
    )]
    InsideQuotes {
        /// The line where the quotation mark is opened, counted from 1.
        opened: usize,
    },
    /// A quotation mark is not closed on the line.
    #[error("opens a quotation mark and does not close it: close it, or write the key without quotes")]
    Unclosed,
    /// Something follows the closing quotation mark.
    #[error(
        "goes on after its closing quotation mark: remove that, or put a space and a `#` before a comment"
    )]
    AfterQuotes,
    /// A quotation mark stands inside the value.
    #[error(
        "has a quotation mark inside its value: write the key alone, or between one pair of single quotes"
    )]
    QuoteInside,
    /// The value has a `$`.
    #[error(
        "has a `$` in its value, which no key has and which some programs replace even in quotes: write the key \
         itself, not the name of a variable"
    )]
    Dollar,
    /// The value has a `\`.
    #[error("has a `\\` in its value, which no key has and which some programs remove: write the key itself")]
    Backslash,
    /// A `#` starts a comment for some programs only.
    #[error(
        "has a `#` that starts a comment for some programs only: put a space before a comment; where it belongs to \
         the value, write the value in single quotes; leave an empty value with nothing after it"
    )]
    Hash,
    /// A blank other than a plain space stands beside the name or the value.
    #[error(
        "has a tab, a no-break space (U+00A0), an ideographic space (U+3000) or another blank or invisible character \
         beside the name or the value: use plain spaces, or none"
    )]
    Blank,
    /// It is not UTF-8.
    #[error("has a value that is not UTF-8: save the file as UTF-8")]
    NotUtf8,
}
