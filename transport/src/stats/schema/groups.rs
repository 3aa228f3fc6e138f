//! What a declared group of counters becomes: its words in the page, a reader's copy of them, and their descriptors. Used by the list in [`super`]
//! and nowhere else; a counter marked `derived` has a descriptor and a place in the copy, and no word.

macro_rules! word {
    () => {
        AtomicU64
    };
    (derived) => {
        Derived
    };
}

macro_rules! offset {
    ($at:expr) => {
        Some($at)
    };
    ($at:expr, derived) => {
        None
    };
}

macro_rules! stored {
    ($word:expr) => {
        Some($word)
    };
    ($word:expr, derived) => {
        None
    };
}

macro_rules! groups {
    ($(
        $(#[$gdoc:meta])*
        $group:ident, $Words:ident, $View:ident, $scope:ident, $base:expr => {
            $( $name:ident : $kind:ident, $unit:ident $(, $derived:ident)?, $help:literal; )*
        }
    )*) => {
        $(
            $(#[$gdoc])*
            ///
            /// In the page: plain Relaxed stores by one writer, but atomic additions in [`ProcessWords`], which has several;
            /// a viewer reads them Relaxed and may see counters of one group a few messages apart.
            #[repr(C, align(128))]
            #[derive(Debug, Default)]
            pub struct $Words { $(
                #[doc = $help]
                pub $name: word!($($derived)?),
            )* }

            $(#[$gdoc])*
            ///
            /// A reader's copy.
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
            pub struct $View { $(
                #[doc = $help]
                pub $name: u64,
            )* }

            impl $View {
                /// Descriptors of this group, in page order.
                pub const DESCRIPTORS: &'static [Descriptor] = &[$( Descriptor {
                    name: stringify!($name),
                    kind: Kind::$kind,
                    unit: Unit::$unit,
                    scope: Scope::$scope,
                    offset: offset!($base + std::mem::offset_of!($Words, $name) $(, $derived)?),
                    help: $help,
                }, )*];

                /// Builds the copy by asking `value` for each descriptor, once and in the order of
                /// [`Self::DESCRIPTORS`].
                pub fn from_fn(mut value: impl FnMut(&'static Descriptor) -> u64) -> Self {
                    let mut list = Self::DESCRIPTORS.iter();
                    // A struct literal evaluates its fields in the order written, which is the list's order.
                    Self { $( $name: { let _ = stringify!($name); list.next().map_or(0, &mut value) }, )* }
                }

                /// The values in the order of [`Self::DESCRIPTORS`].
                pub fn values(&self) -> Vec<u64> {
                    vec![$( self.$name, )*]
                }
            }

            impl $Words {
                /// Every word, in the order of the descriptors.
                #[doc(hidden)]
                pub fn all(&self) -> Vec<&AtomicU64> {
                    let words = [$( stored!(&self.$name $(, $derived)?), )*];
                    words.into_iter().flatten().collect()
                }
            }

            const _: () = assert!(std::mem::size_of::<$Words>() <= GROUP_WORDS * 8);
        )*

        const GROUPS: &[&[Descriptor]] = &[$( $View::DESCRIPTORS, )*];

        /// Every counter and gauge of a page (histograms apart), in page order, with those that readers derive.
        pub fn descriptors() -> impl Iterator<Item = &'static Descriptor> {
            GROUPS.iter().copied().flatten()
        }
    };
}
