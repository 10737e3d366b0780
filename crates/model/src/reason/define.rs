//! The macro that makes types and texts of the table of reasons. It only says how a row is read.

/// Defines the enum of reasons, its table, and the texts, from rows.
macro_rules! reasons {
    ($($group:ident { $(
        $code:literal $variant:ident { $($field:ident: $type:ty),* }
            means $meaning:literal
            message $message:literal
            $place:ident $hint:literal;
    )+ })+) => {
        /// Why something is not as a user wants it.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Reason {
            $($(
                #[doc = $meaning]
                $variant {
                    $(
                        #[doc = concat!("The message's `", stringify!($field), "`.")]
                        $field: $type,
                    )*
                },
            )+)+
        }

        /// All reasons, in the order of docs/reasons.md.
        pub const TABLE: &[Entry] = &[$($(
            Entry {
                code: $code,
                name: stringify!($variant),
                group: Group::$group,
                meaning: $meaning,
                hint: $hint,
            },
        )+)+];

        /// The reasons' numbers in the table.
        #[derive(Clone, Copy)]
        enum Row {
            $($($variant,)+)+
        }

        #[allow(unused_variables, reason = "a text need not have all the data")]
        impl Reason {
            /// This reason's row.
            pub fn entry(&self) -> &'static Entry {
                let row = match self {
                    $($(Self::$variant { .. } => Row::$variant,)+)+
                };
                &TABLE[row as usize]
            }

            /// What happened, in 1,000 bytes at most.
            pub fn message(&self) -> String {
                match self {
                    $($(Self::$variant { $($field),* } => bounded(format!($message), MESSAGE),)+)+
                }
            }

            /// What to do.
            pub fn hint(&self) -> String {
                match self {
                    $($(Self::$variant { $($field),* } => format!($hint),)+)+
                }
            }

            /// Whether texts for people end with the hint.
            pub(super) fn says_hint(&self) -> bool {
                match self {
                    $($(Self::$variant { .. } => reasons!(@$place),)+)+
                }
            }
        }
    };
    (@said) => { true };
    (@apart) => { false };
}
