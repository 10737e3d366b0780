//! The macro of the table of settings. It says what a setting is; which there are, the table says.

/// Defines a struct with a field for each setting, and its part of the table.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $name:ident;
        $(
            $(#[doc = $doc:literal])+
            $key:ident: $type:ty {
                kind: $kind:ident,
                group: $group:ident,
                default: $default:expr,
                flag: $flag:literal,
                value: $value:literal,
                variable: $variable:expr,
            }
        )+
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $key: Option<$type>,
            )+
        }

        impl TablePart for $name {
            const TABLE: &'static [Setting] = &[
                $(Setting {
                    key: stringify!($key),
                    kind: Kind::$kind,
                    group: Group::$group,
                    default: $default,
                    option: Some(AgentOption {
                        flag: $flag,
                        value: $value,
                        variable: $variable,
                    }),
                    doc: concat!($($doc, "\n"),+),
                },)+
            ];

            fn get(&self, key: &str) -> Option<String> {
                match key {
                    $(stringify!($key) => self.$key.as_ref().map(ToString::to_string),)+
                    _ => None,
                }
            }

            fn set(&mut self, setting: &Setting, text: &str) -> Result<(), WrongValue> {
                let wrong = WrongValue(setting.kind);
                match setting.key {
                    $(stringify!($key) => self.$key = Some(text.parse().map_err(|_| wrong)?),)+
                    _ => return Err(wrong),
                }
                Ok(())
            }

            fn or(self, others: Self) -> Self {
                Self { $($key: self.$key.or(others.$key),)+ }
            }
        }
    };
}

pub(super) use settings;
