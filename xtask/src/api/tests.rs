//! Each rule of the listing, by a small crate and what is listed of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;

/// The listing of a crate with these files, without the words above it.
fn list(files: &[(&str, &str)]) -> Result<String, ApiError> {
    let files: BTreeMap<PathBuf, &str> = files.iter().map(|(path, text)| (path.into(), *text)).collect();
    let read = |path: &Path| {
        files.get(path).map(|text| (*text).to_owned()).ok_or(io::Error::from(io::ErrorKind::NotFound))
    };
    let listing = listing_from("a-b", Path::new("src/lib.rs"), &read)?;
    let body = listing.split_once("\n\n").map_or("", |(_, body)| body);
    Ok(body.to_owned())
}

fn check(text: &str, expect: &str) {
    let listed = list(&[("src/lib.rs", text)]).expect("a crate");
    assert_eq!(listed, format!("// ---- a_b\n\n{}", expect.trim_start()), "of {text}");
}

#[test]
fn private_items_and_tests_are_left_out() {
    check(
        "pub fn a() {}\nfn b() {}\npub(crate) fn c() {}\n#[cfg(test)]\npub fn d() {}\nstruct E;\n",
        "pub fn a();\n",
    );
}

#[test]
fn bodies_comments_and_idle_attributes_are_left_out() {
    check(
        "/// Says.\n#[inline]\n#[must_use]\npub fn a(mut b: u8) -> u8 { b += 1; b }",
        "#[must_use]\npub fn a(b: u8) -> u8;\n",
    );
    check(
        "pub async fn a<T>(b: T) where T: Into<String> { b; }",
        "pub async fn a<T>(b: T)\nwhere\n    T: Into<String>;\n",
    );
    check(
        "#[non_exhaustive]\n#[derive(Debug, Clone)]\n#[serde(rename = \"b\")]\npub struct A;",
        "#[non_exhaustive]\n#[derive(Debug, Clone)]\npub struct A;\n",
    );
}

#[test]
fn derived_traits_stand_on_one_line() {
    let many = "#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]";
    check(&format!("{many}\npub struct A;"), &format!("{many}\npub struct A;\n"));
    check("#[derive(Debug, Clone,)]\npub struct A;", "#[derive(Debug, Clone)]\npub struct A;\n");
}

#[test]
fn fields_are_shown_as_far_as_callers_see_them() {
    check("pub struct A(pub u8, u16);", "pub struct A(pub u8, _);\n");
    check("pub struct A { pub b: u8 }", "pub struct A {\n    pub b: u8,\n}\n");
    check(
        "pub struct A { b: u8, #[serde(skip)] pub c: u8 }",
        "pub struct A {\n    pub c: u8,\n    // some fields are private\n}\n",
    );
    check(
        "pub enum A { /// Doc.\n #[error(\"b\")] B { c: u8 }, D(u8), }",
        "pub enum A {\n    B { c: u8 },\n    D(u8),\n}\n",
    );
}

#[test]
fn values_of_constants_are_shown_while_they_are_short() {
    check("pub const A: u8 = 1;", "pub const A: u8 = 1;\n");
    check("pub static A: u8 = 1;", "pub static A: u8 = _;\n");
    let long = format!("pub const A: &[u8] = &[{}];", "1, ".repeat(200));
    check(&long, "pub const A: &[u8] = _;\n");
}

#[test]
fn a_type_is_followed_by_its_public_methods_and_traits() {
    check(
        "pub struct A;\nimpl A { pub fn b(&self) { c() } fn d() {} pub const E: u8 = 1; }\nimpl A { fn f() {} }\n\
         impl Iterator for A { type Item = u8; fn next(&mut self) -> Option<u8> { None } }\n\
         impl From<A> for String { fn from(a: A) -> Self { b } }\n\
         impl<'a> PartialEq<&'a A> for Vec<A> { }",
        "
pub struct A;
impl A {
    pub fn b(&self);
    pub const E: u8 = 1;
}
impl Iterator for A {
    type Item = u8;
}
impl From<A> for String {}
impl<'a> PartialEq<&'a A> for Vec<A> {}
",
    );
}

#[test]
fn impls_of_private_types_and_traits_are_left_out() {
    check(
        "pub struct A;\nstruct B;\ntrait C {}\npub trait D {}\nimpl C for A {}\nimpl D for A {}\nimpl D for B {}\n",
        "pub struct A;\nimpl D for A {}\n\npub trait D {}\n",
    );
}

#[test]
fn a_trait_says_which_methods_are_provided() {
    check(
        "pub trait A: Send { type B; const C: u8; fn d(&self) -> u8; fn e(&self) { f() } }",
        "
pub trait A: Send {
    type B;
    const C: u8;
    fn d(&self) -> u8;
    fn e(&self) { .. }
}
",
    );
}

#[test]
fn modules_are_parts_sorted_by_path_and_read_from_their_files() {
    let files = [
        (
            "src/lib.rs",
            "pub mod z;\npub mod m;\nmod hidden;\n#[cfg(feature = \"f\")]\npub mod b { pub fn b() {} }",
        ),
        ("src/z.rs", "pub mod deep;\npub fn z() {}"),
        ("src/z/deep.rs", "pub fn deep() {}"),
        ("src/m/mod.rs", "#[path = \"odd.rs\"]\npub mod n;"),
        ("src/m/odd.rs", "pub fn n() {}"),
        ("src/hidden.rs", "pub fn hidden() {}"),
    ];
    let expect = "\
// ---- a_b::b #[cfg(feature = \"f\")]

pub fn b();

// ---- a_b::m::n

pub fn n();

// ---- a_b::z

pub fn z();

// ---- a_b::z::deep

pub fn deep();
";
    assert_eq!(list(&files).expect("a crate"), expect);
}

#[test]
fn what_a_private_module_hides_is_shown_where_it_is_used() {
    check(
        "mod a { mod deep { pub struct C; impl C { pub fn d() {} } } pub use deep::C; pub struct E; }\n\
         pub use a::C;\npub use other::F;\n",
        "pub use a::C;\n\npub struct C;\nimpl C {\n    pub fn d();\n}\n\npub use other::F;\n",
    );
    check(
        "mod a { pub struct B; pub fn c() {} struct D; }\npub use self::a::*;\n",
        "pub use self::a::*;\n\npub struct B;\n\npub fn c();\n",
    );
    check(
        "mod a { pub struct B; pub struct C; }\npub use crate::a::B as D;\n",
        "pub use crate::a::B as D;\n\npub struct B;\n",
    );
}

#[test]
fn what_is_public_already_is_not_shown_twice() {
    let listed = list(&[("src/lib.rs", "pub use a::B;\npub mod a { pub struct B; }")]).expect("a crate");
    assert_eq!(listed, "// ---- a_b\n\npub use a::B;\n\n// ---- a_b::a\n\npub struct B;\n");
}

#[test]
fn a_private_module_that_is_used_as_a_whole_is_a_part() {
    let text = "mod hidden { pub mod a { pub struct B; impl B { pub fn c() {} } } }\npub use hidden::a;\n";
    let listed = list(&[("src/lib.rs", text)]).expect("a crate");
    let expect = "\
// ---- a_b

pub use hidden::a;

// ---- a_b::a

pub struct B;
impl B {
    pub fn c();
}
";
    assert_eq!(listed, expect);
}

#[test]
fn impls_in_other_modules_belong_to_their_type() {
    check(
        "pub struct A;\nmod b { use super::A; impl A { pub fn b() {} } }\n\
         mod c { use crate::*; impl A { pub fn c() {} } }\n\
         mod d { struct A; impl A { pub fn d() {} } }\n",
        "pub struct A;\nimpl A {\n    pub fn b();\n}\nimpl A {\n    pub fn c();\n}\n",
    );
}

#[test]
fn items_that_a_macro_writes_are_listed_as_if_by_hand() {
    check(
        "macro_rules! id { ($(#[$doc:meta])* $name:ident) => {\n\
             $(#[$doc])* #[derive(Debug)] pub struct $name(pub u64);\n\
             impl $name { pub fn next(self) -> Self { Self(self.0 + 1) } } } }\n\
         id!(\n/// Doc.\nA);\nimpl A { pub fn c() {} }",
        "
#[derive(Debug)]
pub struct A(pub u64);
impl A {
    pub fn next(self) -> Self;
}
impl A {
    pub fn c();
}
",
    );
}

#[test]
fn a_macro_from_elsewhere_is_listed_as_its_invocation() {
    check(
        "elsewhere::flags!(pub struct A: u8);\nelsewhere::quiet!(b);",
        "elsewhere::flags!(pub struct A : u8);\n",
    );
}

#[test]
fn exported_macros_stand_at_the_root() {
    check(
        "mod a {\n/// Doc.\n#[macro_export]\nmacro_rules! b { () => { 1 } }\nmacro_rules! c { () => {} } }",
        "#[macro_export]\nmacro_rules! b {}\n",
    );
}

#[test]
fn imports_that_lead_in_a_circle_come_to_an_end() {
    check(
        "mod a { pub use super::b::C; }\nmod b { pub use super::a::C; }\npub use a::C;\n",
        "pub use a::C;\n",
    );
    check(
        "mod a { pub use super::b::*; pub struct C; }\nmod b { pub use super::a::*; pub struct D; }\npub use a::*;\n",
        "pub use a::*;\n\npub use super::b::*;\n\npub use super::a::*;\n\npub struct D;\n\npub struct C;\n",
    );
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let check = |files: &[(&str, &str)], expect: &str| {
        assert_eq!(list(files).expect_err("a broken crate").to_string(), expect);
    };
    check(&[("src/lib.rs", "pub mod a;")], "src/a.rs: entity not found");
    check(&[("src/lib.rs", "\nfn fn")], "src/lib.rs:2: expected identifier, found keyword `fn`");
}
